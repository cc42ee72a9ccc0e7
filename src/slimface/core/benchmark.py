"""Benchmark: what a model costs on one machine, exactly as it stands on disk."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from slimface.core.value import Value


class Machine(Value):
    """Where something was measured."""

    processor: str
    cores: int = Field(gt=0)
    """Logical processors this process may use."""

    memory_bytes: int | None
    """Physical memory; None where the system does not say."""

    system: str
    """Operating system, kernel and architecture."""

    governor: str | None
    """How the processor chooses its clock; None where the system does not say."""

    versions: Mapping[str, str]
    """Package -> version: Python, slimface, NumPy and the runtimes that are installed."""


class Spread(Value):
    """Milliseconds of many runs."""

    median_ms: float
    p10_ms: float
    """A tenth of the runs was at most this fast."""

    p90_ms: float
    least_ms: float
    best_round_ms: float
    """The least of the rounds' medians: nearest to what an undisturbed machine does."""


class Benchmark(Value):
    """What one model costs at one input size with one number of threads."""

    kind: Literal["benchmark"] = "benchmark"

    model: str
    """Name of the model or its file."""

    model_fingerprint: str
    """SHA-256 of the file, or of the model's spec and tensors."""

    runtime: str
    """``torch``, ``onnxruntime``, …"""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    threads: int = Field(gt=0)

    total: Spread
    """From an 8-bit picture in memory to its faces: the sum of the next three, run by run."""

    preprocess: Spread
    """Resizing and normalising."""

    network: Spread
    postprocess: Spread
    """Thresholding, decoding, suppression."""

    rounds: int = Field(gt=0)
    runs: int = Field(gt=0)
    """Runs that count, over all rounds."""

    faces: int = Field(ge=0)
    """Faces found on the picture; the time of the postprocessing depends on them."""

    open_ms: float
    """From a bare interpreter to the opened model, the import of its runtime included."""

    first_ms: float
    """The first detection after that."""

    memory_bytes: int = Field(ge=0)
    """Most memory in use, less that of the interpreter with NumPy and OpenCV before the runtime
    was imported."""

    file_bytes: int | None
    """Size of the model's file; None for a name of the zoo."""

    parameters: int | None = None
    macs: int | None = None
    """Multiply-accumulates of one forward pass at this size; None where nobody counted them."""

    load_average: float | None
    """Processes that wanted to run in the minute before; above ``cores``, doubt the figures."""

    machine: Machine
    command: tuple[str, ...] = ()
    """The command line that made this."""

    date: datetime
    """When it was finished, in UTC."""

    version: str
    """Version of slimface."""
