"""Matrix: what models cost and find in every runtime, exactly as it stands on disk."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal

from pydantic import Field

from slimface.core.benchmark import Benchmark
from slimface.core.record import Fraction, Protocol
from slimface.core.value import Value


class Quality(Value):
    """How well a file finds faces, stamped."""

    protocol: Protocol
    stamp: str
    average_precision: Mapping[str, Fraction | None]
    """Subset -> AP; None for a subset without faces."""

    @property
    def headline(self) -> float | None:
        """The figure that decides: the last subset's, which is the hardest or the only one."""
        return [None, *self.average_precision.values()][-1]


class Cell(Value):
    """One model in one runtime, precision, size and number of threads."""

    kind: Literal["cell"] = "cell"
    model: str
    """As it was named."""

    runtime: str
    precision: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    threads: int = Field(gt=0)
    file: str | None = None
    """What would be shipped; None for what runs in torch, or was refused before there was one."""

    benchmark: Benchmark | None = None
    quality: Quality | None = None
    """None where no pictures were given, or the model finds no faces."""

    refused: str = ""
    """Why there are no figures; empty where there are."""


class Shipped(Value):
    """The file to ship of one model, for one size and number of threads, and why."""

    model: str
    height: int
    width: int
    threads: int
    file: str
    reason: str

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = f"{self.width}x{self.height}, {threads}"
        return f"Of {title(self.model)} at {where}, ship {self.file} ({self.reason})."


class Advice(Value):
    """What a matrix says to somebody who has to choose."""

    ship: tuple[Shipped, ...] = ()
    remarks: tuple[str, ...] = ()
    """Where fewer bits, removed channels or more threads do not pay on this machine."""


def title(model: str) -> str:
    """Return the name of a model for tables; of a file, without its folder."""
    return model if "," in model else PurePath(model).name


class Matrix(Value):
    """All cells of one call, and what follows from them."""

    kind: Literal["matrix"] = "matrix"
    cells: tuple[Cell, ...]
    advice: Advice = Advice()
