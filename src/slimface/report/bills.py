"""Costs: what each step took of the machine, and what it bought."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimface.report import lineage, quantities
from slimface.report.run import Entry, Run, mapping, number, sequence


@dataclass(frozen=True, slots=True)
class Bill:
    """What a step took and bought, ready to print; empty where nothing was recorded."""

    step: int
    title: str
    took: str
    processor: str
    memory: str
    energy: str
    parameters: str
    macs: str
    quality: str


@dataclass(frozen=True, slots=True)
class Score:
    """How good a model was found to be, by a protocol that has a name."""

    name: str
    value: float
    stamp: str


def bills(run: Run) -> list[Bill]:
    """Return a line for each step that says what it took, and one for their sum."""
    steps = [entry for entry in lineage.steps(run) if mapping(entry.record.get("spent"))]
    if not steps:
        return []
    gains = _gains(run, steps)
    found = [_bill(run, entry, gains.get(entry.step, "")) for entry in steps]
    return [*found, _sum(steps)]


def sources(run: Run) -> list[str]:
    """Return where the figures of energy and memory come from, in sentences."""
    spent = [mapping(entry.record.get("spent")) for entry in lineage.steps(run)]
    said = dict.fromkeys(str(one["energy"]) for one in spent if one.get("energy"))
    notes = [f"Energy: {how}." for how in said]
    if any(one.get("peak_is_own") is False for one in spent):
        notes.append("Memory: the peak of the whole run until then, not of the step alone.")
    again = [entry for entry in lineage.steps(run) if _attempts(entry) > 1]
    notes += [
        f"Step {entry.step} was interrupted; its {_attempts(entry):g} attempts are added up."
        for entry in again
    ]
    return notes


def score(entries: Iterable[Entry]) -> Score | None:
    """Return the last figure for how good a model is: AP of the hardest subset, or top-1."""
    found = None
    for entry in entries:
        record = entry.record
        if entry.kind == "accuracy" and (top1 := number(record.get("top1"))) is not None:
            found = Score("top-1", top1, _stamp(record))
        elif entry.kind == "evaluation":
            for subset in map(mapping, sequence(record.get("subsets"))):
                value = number(subset.get("average_precision"))
                if value is not None:
                    found = Score(f"AP {subset.get('name', '')}".strip(), value, _stamp(record))
    return found


def _stamp(record: Mapping[str, Any]) -> str:
    # What was measured by equal rules has equal protocols, to the letter.
    return repr(record.get("protocol"))


def _bill(run: Run, entry: Entry, quality: str) -> Bill:
    record = entry.record
    spent = mapping(record.get("spent"))
    before, after = mapping(record.get("before")), mapping(record.get("after"))
    changed = before != after
    return Bill(
        step=entry.step,
        title=lineage.title(run, entry),
        took=_said(quantities.duration, spent.get("seconds")),
        processor=_said(quantities.duration, spent.get("processor_seconds")),
        memory=_said(quantities.size, spent.get("peak_bytes")),
        energy=_said(_energy, spent.get("joules")),
        parameters=_change(before, after, "parameters", quantities.count) if changed else "",
        macs=_change(before, after, "macs", quantities.brief) if changed else "",
        quality=quality,
    )


def _sum(steps: Sequence[Entry]) -> Bill:
    def total(key: str) -> float:
        return sum(number(mapping(entry.record["spent"]).get(key)) or 0 for entry in steps)

    peaks = [number(mapping(entry.record["spent"]).get("peak_bytes")) or 0 for entry in steps]
    first, last = mapping(steps[0].record.get("before")), mapping(steps[-1].record.get("after"))
    return Bill(
        step=-1,
        title="all steps",
        took=quantities.duration(total("seconds")),
        processor=quantities.duration(total("processor_seconds")),
        memory=quantities.size(max(peaks)),
        energy=_energy(total("joules")),
        parameters=_change(first, last, "parameters", quantities.count),
        macs=_change(first, last, "macs", quantities.brief),
        quality="",
    )


def _gains(run: Run, steps: Sequence[Entry]) -> dict[int, str]:
    """Return by step what it did to the score.

    A measurement belongs to all steps that made another model since the one before it by the same
    rules, and stands beside the last of them.
    """
    gains: dict[int, str] = {}
    known: Score | None = None
    since: list[int] = []
    exported: list[int] = []
    for entry in steps:
        if entry.record.get("changes"):
            since.append(entry.step)
        elif entry.name == "export":
            exported.append(entry.step)
        now = score(e for e in run.entries if e.step == entry.step)
        if now is None:
            continue
        # A file may answer otherwise than the model it was written from.
        owners = since or exported or [entry.step]
        gains[owners[-1]] = _gain(known, now, owners)
        known, since, exported = now, [], []
    return gains


def _gain(known: Score | None, now: Score, owners: Sequence[int]) -> str:
    text = f"{now.name} {quantities.points(now.value)}"
    if known is None or (known.name, known.stamp) != (now.name, now.stamp):
        return text
    change = quantities.signed(100 * (now.value - known.value))
    with_others = f" with step {quantities.spoken([str(n) for n in owners[:-1]])}"
    return f"{text} ({change}{with_others if owners[:-1] else ''})"


def _change(
    before: Mapping[str, Any], after: Mapping[str, Any], key: str, form: quantities.Form
) -> str:
    first, last = number(before.get(key)), number(after.get(key))
    if first is None or last is None:
        return ""
    return f"{form(last)} ({quantities.relative(first, last)})" if first else form(last)


def _said(form: quantities.Form, value: object) -> str:
    found = number(value)
    return "" if found is None else form(found)


def _energy(joules: float) -> str:
    return f"{quantities.brief(joules)}J" if joules >= 1000 else f"{joules:.0f} J"


def _attempts(entry: Entry) -> float:
    return number(mapping(entry.record.get("spent")).get("attempts")) or 0
