"""Accuracy: how well a classifier did, exactly as on disk."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from slimface.core.record import Fraction
from slimface.core.value import Value


class AccuracyProtocol(Value):
    """Everything besides the model that moves an accuracy.

    Figures may stand side by side if, and only if, their protocols are equal.
    """

    evaluator: str = "accuracy-1"
    truth: str
    """Name of the pictures: ``pets test``."""

    truth_sha256: str
    """Hash of classes, names and labels."""

    pictures: int = Field(gt=0)
    height_px: int
    width_px: int
    fit: str
    """How a picture is brought to that size: ``stretch``, or ``crop 0.875``."""

    @property
    def stamp(self) -> str:
        """A short name of this protocol: equal protocols have equal stamps."""
        return self.fingerprint()[:8]


class Accuracy(Value):
    """The share of pictures whose class was found, with all that is needed to believe it."""

    kind: Literal["accuracy"] = "accuracy"
    model: str
    model_fingerprint: str
    """SHA-256 of the model's spec and tensors, or of its file."""

    protocol: AccuracyProtocol
    top1: Fraction
    """Share of pictures whose most likely class is right."""

    top5: Fraction
    """Share of pictures whose class is among the five most likely."""

    low: Fraction
    """Lower end of Wilson's 95 % interval of ``top1``."""

    high: Fraction
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pictures by class (rows) and answer (columns)."""

    seconds: float = Field(ge=0)
    command: tuple[str, ...] = ()
    date: datetime
    version: str

    @property
    def stamp(self) -> str:
        """The stamp of the protocol; show it beside each figure."""
        return self.protocol.stamp

    def by_class(self) -> dict[str, float | None]:
        """Return the share of each class that was found; None for a class without pictures."""
        shares: dict[str, float | None] = {}
        for i, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True)):
            shares[name] = row[i] / sum(row) if sum(row) else None
        return shares

    def confused(self, count: int = 5) -> list[tuple[str, str, int]]:
        """Return what is taken for what, most often first: class, answer, pictures."""
        pairs = [
            (self.classes[i], self.classes[j], pictures)
            for i, row in enumerate(self.confusion)
            for j, pictures in enumerate(row)
            if i != j and pictures
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:count]
