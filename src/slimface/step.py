"""Step: model -> model, and the context it works in."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from slimface.core.value import Value
from slimface.data.source import Source
from slimface.model.detector import Detector
from slimface.order import Terms

T = TypeVar("T")
Role = Literal["before", "after"]


def _no_bar(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    return items


@dataclass(frozen=True)
class Context:
    """Where a step works: its folder, its data, its seed."""

    folder: Path
    """For whatever the step wants to keep; it exists and survives interruptions."""

    source: Source | None = None
    """The pictures; None where a command needs none."""

    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    """Processes that prepare training pictures."""

    track: Callable[..., Any] = _no_bar
    """``track(items, description, total=...)`` iterates over items and may draw a bar."""

    exported: tuple[Path, ...] = ()
    """Files that earlier steps have exported, oldest first."""

    def record(
        self, kind: str, content: Value | Mapping[str, Any], *, role: Role | None = None
    ) -> None:
        """Add a measurement to the folder's ``records.jsonl``, at once and for good.

        Args:
            kind: What was measured: ``epoch``, ``evaluation``, …
            content: The measurement.
            role: Whether it is of the model the recipe started from or of the one it made, where
                the order of the steps does not say.
        """
        data = content.model_dump(mode="json") if isinstance(content, Value) else dict(content)
        line: dict[str, Any] = {"kind": kind, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if role is not None:
            line["role"] = role
        line["record"] = data
        with (self.folder / "records.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


class Step(Protocol):
    """One arrow of a recipe."""

    @property
    def kind(self) -> str: ...

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        ...

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the model after this step; the one given stays as it was."""
        ...
