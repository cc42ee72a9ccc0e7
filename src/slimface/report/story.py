"""Story: everything a card says, gathered from the records of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slimface.core.accuracy import Accuracy
from slimface.core.benchmark import Benchmark
from slimface.core.record import Evaluation
from slimface.core.value import Value
from slimface.errors import RecipeError
from slimface.report import (
    ablation,
    accuracy,
    bills,
    chapters,
    compare,
    lineage,
    quantities,
    timing,
)
from slimface.report.ablation import Left
from slimface.report.bills import Bill
from slimface.report.chapters import Bar, Figure, Width
from slimface.report.compare import Row
from slimface.report.lineage import Stop
from slimface.report.pictures import Example, examples
from slimface.report.run import (
    MODEL,
    Entry,
    Run,
    checkpoint_provenance,
    mapping,
    number,
    recipe_value,
)
from slimface.report.timing import Couple

V = TypeVar("V", bound=Value)


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
    bills: tuple[Bill, ...]
    """What each step took and bought; the last one is the sum."""

    bill_notes: tuple[str, ...]
    ablation: tuple[Left, ...]
    """The whole recipe, then without each step in turn."""

    stops: tuple[Stop, ...]
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
    accuracies = [_readable(Accuracy, e, notes) for e in compare.sides(run, "accuracy")]
    quality = [*compare.quality(before, after), *accuracy.rows(*accuracies)]
    notes += accuracy.notes(accuracies[1])
    shown, picture_notes = examples(run.folder, run.of("pictures"))
    groups, uncut = chapters.widths(run)
    losses = chapters.losses(run)
    curves = chapters.precision_recall(comparable, after)
    return Story(
        title=recipe_value(run, "name") or run.folder.resolve().name,
        about=recipe_value(run, "about"),
        done=lineage.done(run),
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
        bills=tuple(bills.bills(run)),
        bill_notes=tuple(bills.sources(run)),
        ablation=tuple(ablation.rows(run)),
        stops=tuple(lineage.lineage(run)),
        commands=_commands(run),
        recipe=run.recipe,
        recipe_sha256=hashlib.sha256(run.recipe.encode()).hexdigest()[:12] if run.recipe else "",
        versions=_versions(run),
        licence=_licence(run),
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
    at = f"input {quantities.sides(width, height)}" if height and width else ""
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
    exported = [
        [number(e.record.get("bytes")) for e in side][-1:] for side in compare.sides(run, "export")
    ]
    first = before.file_bytes if before else next(iter(exported[0]), None)
    last = after.file_bytes if after else next(iter(exported[1]), None)
    if last is not None:
        return compare.bytes_row("File", first, last, detail=f"{lineage.exported_format(run)} file")
    # Training changes no size: without a cut there is nothing to compare with.
    first = _checkpoint_bytes(run.folder, "steps/00-*/") if run.of("prune") else None
    return compare.bytes_row("File", first, _checkpoint_bytes(run.folder, ""), detail="checkpoint")


def _checkpoint_bytes(folder: Path, below: str) -> float | None:
    found = sorted(folder.glob(f"{below}{MODEL}"))
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
        speed = f"{1 / row.share:.2f} times as fast"
        parts.append(f"takes {row.after} instead of {row.before} a picture ({speed})")
    if quality and quality[-1].before and quality[-1].after and quality[-1].tone:
        last = quality[-1]
        parts.append(f"scores {last.after} instead of {last.before} in {last.name}")
    return f"The result {quantities.spoken(parts)}." if parts else ""


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
    """Return the command lines, each once, whatever folder the program was called from."""
    said = [
        str(e.record.get("command") or "") if e.kind == "step" else e.command for e in run.entries
    ]
    words = [command.split(" ", 1) for command in said if command]
    return tuple(
        dict.fromkeys(" ".join([first.rpartition("/")[2], *rest]) for first, *rest in words)
    )


def _start(run: Run) -> Mapping[str, Any]:
    starts = run.of("start", "run")
    return starts[0].record if starts else {}


def _versions(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the versions and the machine, as the run and its benchmarks noted them."""
    found: dict[str, str] = {}
    for source in [_start(run), *(mapping(e.record.get("machine")) for e in run.of("benchmark"))]:
        for key, value in lineage.flat({k: v for k, v in source.items() if k != "weights"}):
            if value and value != "None":
                found.setdefault(key.removeprefix("versions.").replace("_", " "), value)
    return tuple(found.items())


def _licence(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the terms of the weights the run started from, as the run or its model states them."""
    stated = mapping(_start(run).get("weights")) or checkpoint_provenance(run.folder)
    terms = {key: stated[key] for key in ("name", "origin", "licence") if stated.get(key)}
    if not terms and recipe_value(run, "pretrained") == "False":
        terms = {"origin": "random weights; nothing published is in them"}
    return tuple(lineage.flat(terms))


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
