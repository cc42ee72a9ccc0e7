"""Compare: what stood before and after, and whether the two may be compared at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimface.core.record import Evaluation, SubsetResult
from slimface.evaluate import bootstrap
from slimface.report import quantities
from slimface.report.run import Entry, Run

CHANGES = ("prune", "shrink", "quantize", "distill", "search")
"""Steps that make another model of one; without any of them, training is the change."""

Tone = Literal["better", "worse", "same", ""]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table before / after, ready to print."""

    name: str
    before: str
    """Empty where nothing was recorded."""

    after: str
    change: str = ""
    spread: str = ""
    """The 95 % interval of the change, where it was measured."""

    tone: Tone = ""
    detail: str = ""
    """What the figure needs beside it to be understood: a protocol, a runtime."""

    share: float | None = None
    """``after / before``, where both are known."""


def sides(run: Run, *kinds: str) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of these kinds that stand for before and for after.

    Where the writer did not say, before is the last step with such records ahead of the first
    change, after is the last step with such records behind it.
    """
    entries = run.of(*kinds)
    if any(entry.role for entry in entries):
        return (
            [entry for entry in entries if entry.role == "before"],
            [entry for entry in entries if entry.role == "after"],
        )
    change = first_change(run)
    if change is None:
        return [], _last_step(entries)
    return (
        _last_step([entry for entry in entries if entry.step < change]),
        _last_step([entry for entry in entries if entry.step >= change]),
    )


def first_change(run: Run) -> int | None:
    """Return the number of the first step that made another model, or None."""
    for kinds in (CHANGES, ("train", "epoch")):
        steps = [entry.step for entry in run.entries if entry.kind in kinds or entry.name in kinds]
        if steps:
            return min(steps)
    return None


def parameters_row(before: float | None, after: float | None) -> Row | None:
    """Return the row of the parameters, or None if they are not known."""
    return _cost("Parameters", before, after, quantities.count, "")


def macs_row(before: float | None, after: float | None, *, detail: str) -> Row | None:
    """Return the row of the multiply-accumulates, or None if they are not known."""
    return _cost("MACs", before, after, quantities.brief, detail)


def bytes_row(name: str, before: float | None, after: float | None, *, detail: str) -> Row | None:
    """Return the row of a size in bytes, or None if it is not known."""
    return _cost(name, before, after, quantities.size, detail)


def time_row(name: str, before: float | None, after: float | None, *, detail: str) -> Row | None:
    """Return the row of a duration in ms, or None if it is not known."""
    return _cost(name, before, after, quantities.milliseconds, detail)


def quality(before: Evaluation | None, after: Evaluation | None) -> list[Row]:
    """Return a row for each subset; figures of different protocols get no difference."""
    shown = after or before
    if shown is None:
        return []
    refusal = mixed(before, after)
    rows = []
    for result in shown.subsets:
        first = _subset(before, result.name)
        last = _subset(after, result.name)
        refused: tuple[str, str, Tone] = ("not comparable", "", "")
        change, spread, tone = refused if refusal else _difference(first, last)
        rows.append(
            Row(
                name=f"AP {result.name}",
                before=_precision(first),
                after=_precision(last),
                change=change,
                spread=spread,
                tone=tone,
                detail=f"{shown.protocol.scope}, stamp {shown.stamp}",
                share=None if refusal else _share(first, last),
            )
        )
    return rows


def mixed(before: Evaluation | None, after: Evaluation | None) -> str:
    """Return why two evaluations must not be compared, or an empty text if they may."""
    if before is None or after is None:
        return ""
    difference = before.protocol.difference(after.protocol)
    if difference is None:
        return ""
    name, mine, theirs = difference
    return (
        f"The evaluations before and after follow different protocols ({name}: {mine} and "
        f"{theirs}), so their difference would mean nothing. Evaluate both by the same rule."
    )


def _share(before: SubsetResult | None, after: SubsetResult | None) -> float | None:
    first = before.average_precision if before else None
    last = after.average_precision if after else None
    return last / first if first and last is not None else None


def _difference(before: SubsetResult | None, after: SubsetResult | None) -> tuple[str, str, Tone]:
    """Return the change in points, its paired 95 % interval where there is one, and its tone."""
    if before is None or after is None:
        return "", "", ""
    if before.average_precision is None or after.average_precision is None:
        return "", "", ""
    gain = 100 * (after.average_precision - before.average_precision)
    text = f"{quantities.signed(gain)} points"
    tone: Tone = "same" if text.startswith("±") else "better" if gain > 0 else "worse"
    if not before.resampled or len(before.resampled) != len(after.resampled):
        return text, "", tone
    pairs = bootstrap.difference(np.asarray(before.resampled), np.asarray(after.resampled))
    spread = " … ".join(quantities.signed(100 * end) for end in (pairs.low, pairs.high))
    return text, spread, "same" if pairs.low <= 0 <= pairs.high else tone


def _cost(
    name: str, before: float | None, after: float | None, form: quantities.Form, detail: str
) -> Row | None:
    if after is None and before is None:
        return None
    known = bool(before) and after is not None
    change = quantities.relative(before, after) if known and before and after is not None else ""
    tone: Tone = "" if not change or before is None or after is None else _falling(before, after)
    return Row(
        name=name,
        before="" if before is None else form(before),
        after="" if after is None else form(after),
        change=change,
        tone=tone,
        detail=detail,
        share=after / before if before and after is not None else None,
    )


def _falling(before: float, after: float) -> Tone:
    if abs(after - before) < 5e-4 * before:
        return "same"
    return "better" if after < before else "worse"


def _precision(result: SubsetResult | None) -> str:
    if result is None:
        return ""
    if result.average_precision is None:
        return "no faces"
    return quantities.points(result.average_precision)


def _subset(evaluation: Evaluation | None, name: str) -> SubsetResult | None:
    if evaluation is None:
        return None
    return next((result for result in evaluation.subsets if result.name == name), None)


def _last_step(entries: Sequence[Entry]) -> list[Entry]:
    last = max((entry.step for entry in entries), default=0)
    return [entry for entry in entries if entry.step == last]
