"""Lineage: the steps from the first model to the last, each with what it did and found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimface.core.record import Evaluation
from slimface.errors import RecipeError
from slimface.report import compare, phrases, quantities
from slimface.report.run import Entry, Run, mapping, number


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop on the way from the first model to the last."""

    title: str
    facts: tuple[str, ...]
    fingerprint: str
    parent: str
    """Empty if it is the stop before."""

    took: str
    settings: tuple[tuple[str, str], ...]


def steps(run: Run) -> list[Entry]:
    """Return one entry a step: what the run wrote about it, or its first record."""
    told = {entry.step: entry for entry in reversed(run.entries) if entry.step >= 0}
    told.update({entry.step: entry for entry in run.of("step", "start")})
    return [told[number] for number in sorted(told)]


def done(run: Run) -> str:
    """Return what was done, in a sentence."""
    change = compare.first_change(run)
    said = [
        phrase
        for entry in steps(run)
        if (phrase := _phrase(run, entry))
        # What was exported before the change is there to be compared with, not to ship.
        and not (entry.name == "export" and change is not None and entry.step < change)
    ]
    text = quantities.spoken(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _phrase(run: Run, entry: Entry) -> str:
    """Return what a step did, in a few words."""
    of_step = [e for e in run.entries if e.step == entry.step]
    text = phrases.phrase(entry.name, mapping(entry.record.get("settings")), of_step)
    if text.startswith("trained for") and any(e.step < entry.step for e in run.of("prune")):
        return text.replace("trained", "fine-tuned", 1)
    return text


def title(run: Run, entry: Entry) -> str:
    """Return what a step is called on the card: what it did, or its kind."""
    return _phrase(run, entry) or entry.name


def lineage(run: Run) -> list[Stop]:
    """Return the stops of a run, in order."""
    stops: list[Stop] = []
    for entry in steps(run):
        of_step = [e for e in run.entries if e.step == entry.step]
        parent = str(entry.record.get("parent") or "")
        follows = bool(stops) and stops[-1].fingerprint == parent[:12]
        seconds = number(entry.record.get("seconds")) or entry.seconds
        stops.append(
            Stop(
                title=title(run, entry),
                facts=tuple(fact for e in of_step for fact in _facts(e)),
                fingerprint=entry.fingerprint[:12],
                parent="" if follows else parent[:12],
                took=quantities.duration(seconds) if seconds is not None else "",
                settings=tuple(flat(mapping(entry.record.get("settings")))),
            )
        )
    return stops


def _facts(entry: Entry) -> list[str]:
    """Return what a record adds to its stop."""
    record = entry.record
    if entry.kind == "start":
        origin = mapping(record.get("weights")).get("origin")
        return [f"weights of {origin}"] if origin else []
    if entry.kind == "prune":
        after = number(mapping(record.get("after")).get("parameters"))
        return [f"{quantities.count(after)} parameters"] if after is not None else []
    if entry.kind == "evaluation":
        return _precisions(record)
    if entry.kind == "export":
        size = number(record.get("bytes"))
        return [*([quantities.size(size)] if size is not None else []), *_agreement(record)]
    return []


def _precisions(record: Mapping[str, Any]) -> list[str]:
    """Return the average precisions of an evaluation with its stamp, if it can be read."""
    try:
        evaluation = Evaluation.parse(record, where="an evaluation")
    except RecipeError:
        return []
    known = [(r.name, r.average_precision) for r in evaluation.subsets]
    text = ", ".join(f"{name} {quantities.points(ap)}" for name, ap in known if ap is not None)
    return [f"AP {text} (stamp {evaluation.stamp})"] if text else []


def _agreement(record: Mapping[str, Any]) -> list[str]:
    """Return how well an exported file agrees with its model."""
    parity = mapping(record.get("parity"))
    faces, matched = number(parity.get("faces")), number(parity.get("matched"))
    extra, drift = number(parity.get("extra")), number(parity.get("largest_score_drift"))
    if faces is None or matched is None or extra is None or drift is None:
        return []
    said = f"finds {matched:g} of the model's {faces:g} faces and {extra:g} others"
    return [f"{said}, scores at most {drift:.1g} apart"]


def flat(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return nested settings as pairs of text, the names joined by dots."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            pairs += flat(value, f"{above}{key}.")
        elif key.endswith("_bytes") and (size := number(value)) is not None:
            pairs.append((f"{above}{key.removesuffix('_bytes')}", quantities.size(size)))
        else:
            pairs.append((f"{above}{key}", str(value)))
    return pairs


def exported_format(run: Run) -> str:
    """Return the name of the format that was exported last."""
    exports = run.of("export")
    return phrases.format_name(exports[-1].record.get("format") or "onnx" if exports else None)
