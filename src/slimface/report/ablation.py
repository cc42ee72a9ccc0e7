"""Ablation: what a recipe comes to without each of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimface.report import quantities
from slimface.report.run import Run, mapping, number, sequence


@dataclass(frozen=True, slots=True)
class Left:
    """A recipe without one of its steps, ready to print; the first row is all of it."""

    step: int
    """The step that was left out; 0: none."""

    title: str
    parameters: str
    macs: str
    file: str
    latency: str
    quality: str
    reason: str
    """Why there are no figures, where there are none."""


def rows(run: Run) -> list[Left]:
    """Return the rows of the last ablation of a run, the whole recipe first."""
    found = run.of("ablation")
    lines = [mapping(line) for line in sequence(found[-1].record.get("rows"))] if found else []
    whole = next((line for line in lines if not line.get("without")), {})
    return [row(line, whole) for line in lines]


def row(line: Mapping[str, Any], whole: Mapping[str, Any]) -> Left:
    """Return a line of the record as a row, with the distances from the whole recipe."""
    step = int(number(line.get("without")) or 0)
    return Left(
        step=step,
        title=f"without step {step}: {line.get('kind', '')}" if step else "all steps",
        parameters=_beside(line, whole, "parameters", quantities.count),
        macs=_beside(line, whole, "macs", quantities.brief),
        file=_beside(line, whole, "bytes", quantities.size),
        latency=_beside(line, whole, "latency_ms", quantities.milliseconds),
        quality=_quality(line, whole),
        reason=str(line.get("reason") or ""),
    )


def _beside(
    line: Mapping[str, Any], whole: Mapping[str, Any], key: str, form: quantities.Form
) -> str:
    own, other = number(line.get(key)), number(whole.get(key))
    if own is None:
        return ""
    if line is whole or not other or own == other:
        return form(own)
    return f"{form(own)} ({quantities.relative(other, own)})"


def _quality(line: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    own, other = mapping(line.get("score")), mapping(whole.get("score"))
    value, before = number(own.get("value")), number(other.get("value"))
    if value is None:
        return ""
    text = f"{own.get('name', '')} {quantities.points(value)}".strip()
    if line is whole or before is None:
        return text
    if (own.get("name"), own.get("stamp")) != (other.get("name"), other.get("stamp")):
        return f"{text} (another protocol)"
    return f"{text} ({quantities.signed(100 * (value - before))})"
