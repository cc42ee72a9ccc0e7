"""Story: everything a card says, gathered from the records of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimface.core.benchmark import Benchmark
from slimface.core.record import Evaluation
from slimface.core.value import Value
from slimface.errors import RecipeError
from slimface.report import chapters, compare, quantities, timing
from slimface.report.chapters import Bar, Figure, Width
from slimface.report.compare import Row
from slimface.report.pictures import Example, examples
from slimface.report.run import Entry, Run, mapping, number, sequence
from slimface.report.timing import Couple

V = TypeVar("V", bound=Value)


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


@dataclass(frozen=True, slots=True)
class Story:
    """The content of a card, ready to print."""

    title: str
    about: str
    done: str
    """What was done, in a sentence."""

    outcome: str
    """What came of it, in a sentence."""

    date: str
    tiles: tuple[Row, ...]
    table: tuple[Row, ...]
    stamps: tuple[str, ...]
    """The protocol behind each stamp of the table."""

    refusal: str
    losses: tuple[Figure, ...]
    curves: tuple[Figure, ...]
    heights: Figure | None
    widths: Figure | None
    groups: tuple[Width, ...]
    uncut: tuple[tuple[str, str], ...]
    latency: tuple[tuple[str, list[Bar]], ...]
    examples: tuple[Example, ...]
    lineage: tuple[Stop, ...]
    commands: tuple[str, ...]
    recipe: str
    recipe_sha256: str
    versions: tuple[tuple[str, str], ...]
    licence: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def tell(run: Run) -> Story:
    """Return the story of a run: what is there, and what is not."""
    notes = list(run.notes)
    before, after, refusal = _evaluations(run, notes)
    comparable = None if refusal else before
    first, last = (_readable(Benchmark, e, notes) for e in compare.sides(run, "benchmark"))
    couples = timing.pairs(first, last)
    notes += timing.doubts(couples)
    costs = _costs(run, couples)
    quality = compare.quality(before, after)
    shown, picture_notes = examples(run.folder, run.of("pictures"))
    groups, uncut = chapters.widths(run)
    start = _start(run)
    losses = chapters.losses(run)
    curves = chapters.precision_recall(comparable, after)
    return Story(
        title=_recipe_value(run, "name") or run.folder.resolve().name,
        about=_recipe_value(run, "about"),
        done=_done(run),
        outcome=_outcome(costs, quality),
        date=max((entry.time for entry in run.entries), default="")[:10],
        tiles=_tiles(costs, quality),
        table=(*costs, *quality),
        stamps=_stamps(before, after),
        refusal=refusal,
        losses=tuple(losses),
        curves=tuple(curves),
        heights=chapters.by_height(comparable, after),
        widths=chapters.width_figure(run, groups),
        groups=tuple(groups),
        uncut=tuple(uncut),
        latency=tuple(chapters.latency(couples)),
        examples=tuple(shown),
        lineage=tuple(_lineage(run)),
        commands=_commands(run),
        recipe=run.recipe,
        recipe_sha256=hashlib.sha256(run.recipe.encode()).hexdigest()[:12] if run.recipe else "",
        versions=_versions(run),
        licence=_licence(start),
        missing=_missing(before, after, couples, bool(losses), bool(groups), bool(shown)),
        notes=(*notes, *picture_notes),
    )


def _evaluations(run: Run, notes: list[str]) -> tuple[Evaluation | None, Evaluation | None, str]:
    """Return the evaluations before and after, of one protocol wherever that is possible."""
    firsts, lasts = (_readable(Evaluation, e, notes) for e in compare.sides(run, "evaluation"))
    for last in reversed(lasts):
        for first in reversed(firsts):
            if first.protocol == last.protocol:
                return first, last, ""
    before = firsts[-1] if firsts else None
    after = lasts[-1] if lasts else None
    return before, after, compare.mixed(before, after)


def _readable(value: type[V], entries: Sequence[Entry], notes: list[str]) -> list[V]:
    """Return the records as values; one that breaks a rule is left out and noted."""
    read = []
    for entry in entries:
        try:
            read.append(value.parse(entry.record, where=f"the record of step {entry.step}"))
        except RecipeError as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            notes.append(f"One {entry.kind} is left out: {reason}.")
    return read


def _costs(run: Run, couples: Sequence[Couple]) -> tuple[Row, ...]:
    prunes = run.of("prune")
    first = mapping(prunes[0].record.get("before")) if prunes else {}
    last = mapping(prunes[-1].record.get("after")) if prunes else {}
    height, width = number(last.get("height")), number(last.get("width"))
    at = f"input {width:g} × {height:g}" if height and width else ""
    before, after = timing.headline(couples)
    shown = after or before
    place = timing.title(shown) if shown else ""
    rows = [
        compare.parameters_row(number(first.get("parameters")), number(last.get("parameters"))),
        compare.macs_row(number(first.get("macs")), number(last.get("macs")), detail=at),
        _file_row(run, before, after),
        compare.time_row(
            "Latency",
            before.total.median_ms if before else None,
            after.total.median_ms if after else None,
            detail=f"median a picture, {place}",
        ),
        compare.bytes_row(
            "Memory",
            before.memory_bytes if before else None,
            after.memory_bytes if after else None,
            detail=f"peak, {place}",
        ),
    ]
    return tuple(row for row in rows if row is not None)


def _file_row(run: Run, before: Benchmark | None, after: Benchmark | None) -> Row | None:
    """Return the size of the file that ships, or of the checkpoint if none was exported."""
    exports = run.of("export")
    first: float | None = before.file_bytes if before else None
    last: float | None = after.file_bytes if after else None
    if last is None and exports:
        last = number(exports[-1].record.get("bytes"))
    if last is not None:
        return compare.bytes_row("File", first, last, detail=f"{_format(run)} file")
    sizes = [_checkpoint_bytes(run.folder, pattern) for pattern in ("steps/00-*/", "")]
    return compare.bytes_row("File", *sizes, detail="checkpoint")


def _format(run: Run) -> str:
    exports = run.of("export")
    name = str(exports[-1].record.get("format") or "ONNX") if exports else "model"
    return name.upper() if name == "onnx" else name


def _checkpoint_bytes(folder: Path, below: str) -> float | None:
    found = sorted(folder.glob(f"{below}model.safetensors"))
    return float(found[0].stat().st_size) if found else None


def _tiles(costs: Sequence[Row], quality: Sequence[Row]) -> tuple[Row, ...]:
    """Return the headline: the costs people ask for, and the hardest subset's precision."""
    asked = [row for row in costs if row.name in ("Parameters", "MACs", "File", "Latency")]
    return (*asked, *quality[-1:])


def _outcome(costs: Sequence[Row], quality: Sequence[Row]) -> str:
    named = {row.name: row for row in costs if row.before and row.after and row.share}
    parts = []
    falls = [
        f"{abs(1 - row.share) * 100:.0f} % {'fewer' if row.share < 1 else 'more'} {noun}"
        for name, noun in (("Parameters", "parameters"), ("MACs", "MACs"))
        if (row := named.get(name)) and row.share and abs(1 - row.share) >= 0.005
    ]
    if falls:
        parts.append(f"has {quantities.spoken(falls)}")
    if (row := named.get("Latency")) and row.share:
        speed = f"{1 / row.share:.2g} times as fast"
        parts.append(f"takes {row.after} instead of {row.before} a picture ({speed})")
    if quality and quality[-1].before and quality[-1].after and quality[-1].tone:
        last = quality[-1]
        parts.append(f"scores {last.after} instead of {last.before} in {last.name}")
    return f"The result {quantities.spoken(parts)}." if parts else ""


def _steps(run: Run) -> list[Entry]:
    """Return one entry a step: what the run wrote about it, or its first record."""
    told = {entry.step: entry for entry in reversed(run.entries) if entry.step >= 0}
    told.update({entry.step: entry for entry in run.of("step", "start")})
    return [told[number] for number in sorted(told)]


def _done(run: Run) -> str:
    phrases = [_phrase(run, entry) for entry in _steps(run)]
    said = [phrase for phrase in phrases if phrase]
    text = quantities.spoken(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _phrase(run: Run, entry: Entry) -> str:
    """Return what a step did, in a few words."""
    of_step = [e for e in run.entries if e.step == entry.step]
    settings = mapping(entry.record.get("settings"))
    match entry.name:
        case "train":
            epochs = len({e.record.get("epoch") for e in of_step if e.kind == "epoch"})
            cut = any(e.step < entry.step for e in run.of("prune"))
            return f"{'fine-tuned' if cut else 'trained'} for {epochs} epochs" if epochs else ""
        case "prune":
            rate = number(mapping(settings.get("allocator")).get("rate"))
            share = f"{100 * rate:g} % of the channels" if rate is not None else "channels"
            by = mapping(settings.get("importance")).get("kind")
            by = by or next(
                (e.record.get("importance") for e in of_step if e.kind == "prune"), None
            )
            return f"removed {share}" + (f" by {str(by).upper()}" if by else "")
        case "export" | "export_onnx" | "onnx":
            return f"exported to {_format(run)}"
    return ""


def _lineage(run: Run) -> list[Stop]:
    stops: list[Stop] = []
    for entry in _steps(run):
        of_step = [e for e in run.entries if e.step == entry.step]
        parent = str(entry.record.get("parent") or "")
        follows = bool(stops) and stops[-1].fingerprint == parent[:12]
        seconds = number(entry.record.get("seconds")) or entry.seconds
        stops.append(
            Stop(
                title=_phrase(run, entry) or entry.name,
                facts=tuple(fact for e in of_step for fact in _facts(e)),
                fingerprint=entry.fingerprint[:12],
                parent="" if follows else parent[:12],
                took=quantities.duration(seconds) if seconds is not None else "",
                settings=tuple(_flat(mapping(entry.record.get("settings")))),
            )
        )
    return stops


def _facts(entry: Entry) -> list[str]:
    """Return what a record adds to its stop."""
    record = entry.record
    if entry.kind == "prune":
        after = number(mapping(record.get("after")).get("parameters"))
        return [f"{quantities.count(after)} parameters"] if after is not None else []
    if entry.kind == "evaluation":
        results = [mapping(result) for result in sequence(record.get("subsets"))]
        values = [(r.get("name"), number(r.get("average_precision"))) for r in results]
        text = ", ".join(f"{name} {quantities.points(v)}" for name, v in values if v is not None)
        return [f"AP {text}"] if text else []
    if entry.kind == "export":
        size = number(record.get("bytes"))
        return [quantities.size(size)] if size is not None else []
    return []


def _flat(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{above}{key}.")
        else:
            pairs.append((f"{above}{key}", str(value)))
    return pairs


def _stamps(before: Evaluation | None, after: Evaluation | None) -> tuple[str, ...]:
    """Return in words what each stamp stands for."""
    words = {}
    for evaluation in (before, after):
        if evaluation is None:
            continue
        rule = evaluation.protocol
        parts = [
            f"{rule.evaluator} on {rule.scope}",
            f"input {rule.input}",
            f"scores from {rule.score_floor:g}" if rule.score_floor is not None else "",
            f"NMS {rule.nms_overlap:g}" if rule.nms_overlap is not None else "",
            f"at most {rule.cap} faces" if rule.cap is not None else "",
            f"truth {rule.truth_sha256[:12]}",
        ]
        words[evaluation.stamp] = ", ".join(part for part in parts if part)
    return tuple(f"{stamp}: {text}" for stamp, text in words.items())


def _commands(run: Run) -> tuple[str, ...]:
    said = [
        str(e.record.get("command") or "") if e.kind == "step" else e.command for e in run.entries
    ]
    return tuple(dict.fromkeys(command for command in said if command))


def _start(run: Run) -> Mapping[str, Any]:
    starts = run.of("start", "run")
    return starts[0].record if starts else {}


def _versions(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the versions and the machine, as the run and its benchmarks noted them."""
    found: dict[str, str] = {}
    sources = [_start(run)]
    sources += [mapping(entry.record.get("machine")) for entry in run.of("benchmark")]
    for source in sources:
        for key, value in _flat(source):
            if not key.startswith("weights."):
                found.setdefault(key.replace("_", " "), value)
    return tuple(found.items())


def _licence(start: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(_flat(mapping(start.get("weights"))))


def _missing(
    before: Evaluation | None,
    after: Evaluation | None,
    couples: Sequence[Couple],
    trained: bool,
    cut: bool,
    pictured: bool,
) -> tuple[str, ...]:
    """Return what a reader may look for in vain, and how to get it."""
    timed = [any(couple[side] for couple in couples) for side in (0, 1)]
    said = [
        (
            not before and not after,
            "how well it finds faces (no evaluation: add an `evaluate` step)",
        ),
        (
            bool(after) and not before,
            "how well it found faces before (add an `evaluate` step before the change)",
        ),
        (
            bool(before) and not after,
            "how well it finds faces now (add an `evaluate` step after the change)",
        ),
        (not any(timed), "how long it takes (no benchmark: add a `benchmark` step)"),
        (timed[1] and not timed[0], "how long it took before (no benchmark of the parent)"),
        (not trained, "loss curves (nothing was trained)"),
        (not cut, "widths (nothing was pruned)"),
        (not pictured, "example pictures (none were recorded)"),
    ]
    return tuple(text for absent, text in said if absent)


def _recipe_value(run: Run, key: str) -> str:
    """Return a plain value at the top of the recipe, without needing a YAML reader."""
    for line in run.recipe.splitlines():
        if line.startswith(f"{key}:"):
            return line.partition(":")[2].strip().strip("'\"")
    return ""
