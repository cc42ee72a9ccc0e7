"""Budget: how small or how fast a model has to become, as people write it.

60k params        at most 60,000 parameters
-40% params       at least 40 % fewer than before
150M macs         at most 150 million multiplications for a picture of the usual size
-40% macs@640x480 at least 40 % fewer, for pictures 640 wide and 480 high
-30% ms@onnxruntime:1t:640x480   at least 30 % less time, measured in that runtime, one thread
300 kB            an exported file of at most 300,000 bytes
-40% size@ncnn    a file for that runtime at least 40 % smaller
"""

import re
from typing import Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from slimface.core.value import Value
from slimface.errors import UsageError

Unit = Literal["params", "macs", "ms", "size"]

TOLERANCE = 0.01
"""A budget counts as met this far below what was asked, or nearer than one channel can come."""

MS_TOLERANCE = 0.05
"""Likewise for milliseconds, on either side: two measurements of one file differ by some of it."""

_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_TEXT = re.compile(
    r"\s*(?P<sign>[-−])?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<scale>%|[kMG](?!s))?"
    r"\s*(?P<unit>params|macs|ms|size|B)\s*(?:@(?P<place>\S+))?\s*"
)
_SIZE = re.compile(r"(\d+)x(\d+)")
_THREADS = re.compile(r"(\d+)t")


class Budget(Value):
    """An upper bound of one cost. In YAML and JSON it is its text."""

    unit: Unit
    amount: float = Field(gt=0)
    """What may be left; if ``relative``, the share to save, in per cent."""

    relative: bool = False
    runtime: str = ""
    """For milliseconds and sizes of files: of which runtime; a file's may be left out."""

    threads: int | None = Field(default=None, gt=0)
    size_px: tuple[int, int] | None = None
    """Height and width of the picture; None: whatever the step says."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return _fields(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.relative and self.amount >= 100:
            raise UsageError(
                f"A budget of -{self.amount:g}% leaves nothing.\nAsk for less than 100 %."
            )
        return self

    @model_serializer
    def _write(self) -> str:
        return str(self)

    def __str__(self) -> str:
        number = f"-{self.amount:.15g}%" if self.relative else f"{self.amount:.15g}"
        unit: str = self.unit
        if unit == "size" and not self.relative:
            number, unit = f"{self.amount / 1e3:.15g}", "kB"
        size = "" if self.size_px is None else f"{self.size_px[1]}x{self.size_px[0]}"
        threads = "" if self.threads is None else f"{self.threads}t"
        place = ":".join(part for part in (self.runtime, threads, size) if part)
        return f"{number} {unit}" + (f"@{place}" if place else "")

    @property
    def is_measured(self) -> bool:
        """Whether it takes an exported file to tell the cost."""
        return self.unit in ("ms", "size")

    @property
    def tolerance(self) -> float:
        """How far off its target a result may be, as a share."""
        return MS_TOLERANCE if self.unit == "ms" else TOLERANCE

    def target(self, before: float) -> float:
        """Return the most that may be left of a cost of ``before``."""
        return before * (1 - self.amount / 100) if self.relative else self.amount


def parse_budget(text: str) -> Budget:
    """Read a budget as people write it.

    Raises:
        UsageError: It is not understood; the message shows what would be.
    """
    return Budget(**_fields(text))


def _fields(text: str) -> dict[str, Any]:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise _unclear(text, "is not understood")
    relative = match["scale"] == "%"
    if relative and not match["sign"]:
        raise _unclear(text, "could mean what goes or what stays: a share that goes has a minus")
    if match["sign"] and not relative:
        raise _unclear(text, "has a minus, which only a share in per cent can have")
    scale = 1.0 if relative else _SCALES[match["scale"] or ""]
    amount = float(match["number"]) * scale
    if amount == 0 or (relative and amount >= 100):
        raise _unclear(text, "leaves nothing" if amount else "asks for nothing")
    unit = "size" if match["unit"] == "B" else match["unit"]
    if unit == "size" and relative != (match["unit"] == "size"):
        raise _unclear(text, "mixes a share with bytes: write -40% size, or 300 kB")
    fields: dict[str, Any] = {"unit": unit, "amount": amount, "relative": relative}
    return fields | _place(text, unit, match["place"] or "")


def _place(text: str, unit: str, place: str) -> dict[str, Any]:
    """Where the cost is counted or measured: ``runtime:1t:640x480``, of which a unit needs some."""
    fields: dict[str, Any] = {}
    for part in filter(None, place.split(":")):
        if (
            unit != "size"
            and (size := _SIZE.fullmatch(part))
            and min(int(size[1]), int(size[2])) > 0
        ):
            fields["size_px"] = (int(size[2]), int(size[1]))
        elif unit == "ms" and (threads := _THREADS.fullmatch(part)) and int(threads[1]) > 0:
            fields["threads"] = int(threads[1])
        elif unit in ("ms", "size") and "runtime" not in fields and part.isidentifier():
            fields["runtime"] = part
        else:
            raise _unclear(text, f"has a place, {part!r}, that is not understood")
    if unit == "params" and fields:
        raise _unclear(text, "names a size, on which parameters do not depend")
    if unit == "ms" and "runtime" not in fields:
        raise _unclear(text, "does not say in which runtime")
    return fields


def _unclear(text: str, complaint: str) -> UsageError:
    return UsageError(
        f"The budget {text!r} {complaint}.\n"
        "Write it like '60k params', '-40% params', '150M macs', '-40% macs@640x480', '300 kB' or "
        "'-30% ms@onnxruntime:1t:640x480'."
    )
