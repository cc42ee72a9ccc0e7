"""Spent: what a step took of the machine it ran on, and what the model it made will take."""

from pydantic import Field

from slimface.core.value import Value


class Spent(Value):
    """Time, memory and energy of a step, all its attempts added up."""

    seconds: float = Field(default=0, ge=0)
    """By the clock."""

    processor_seconds: float = Field(default=0, ge=0)
    """Of all cores, with those of the processes that the step started."""

    peak_bytes: int = Field(default=0, ge=0)
    """The most memory that was resident at once. Of this process to the byte; with the processes
    it started as they were found every half second, what they share counted once."""

    peak_is_own: bool = True
    """Whether the peak is the step's; false where the system only knows that of the whole run."""

    joules: float = Field(default=0, ge=0)
    energy: str = ""
    """Where ``joules`` come from: a counter of the processor, or its time and assumed watts."""

    attempts: int = Field(default=0, ge=0)
    """How often the step was begun; 1 unless it was killed and went on."""


class Footprint(Value):
    """Parameters of a model and multiply-accumulates for one input."""

    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    height_px: int = Field(gt=0)
    width_px: int = Field(gt=0)
