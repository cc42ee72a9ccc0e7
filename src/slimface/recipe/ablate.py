"""Ablate: carry a recipe out without each of its steps in turn, to see what each is worth."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimface.core.value import Value
from slimface.errors import SlimfaceError
from slimface.files import write_text
from slimface.model.checkpoint import load_checkpoint
from slimface.recipe import cost, teachers
from slimface.recipe.check import check
from slimface.recipe.gather import MODEL
from slimface.recipe.recipe import AnyStep, Recipe
from slimface.recipe.run import run
from slimface.report.bills import score
from slimface.report.run import RECORDS, Entry, mapping, number, read_run

FOLDER = "ablation"
"""Inside of the run folder; a folder for each recipe that lacks a step."""


class LeftOut(Value):
    """What a recipe comes to without one of its steps; None where nothing was measured."""

    without: int
    """Which step, from 1 on; 0: none, the whole recipe."""

    kind: str = ""
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    """Of the file exported last."""

    latency_ms: float | None = None
    """Median of the benchmark of that file, at its first size."""

    score: dict[str, Any] | None = None
    """Name, value and protocol of the last measurement."""

    reason: str = ""
    """Why the step cannot be left out, or what went wrong without it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe without one of its steps, or why there is none."""

    number: int
    step: AnyStep
    recipe: Recipe | None
    reason: str = ""


def variants(recipe: Recipe) -> Iterator[Variant]:
    """Return the recipe without each step that makes another model or the file that ships, in turn.

    Steps that only measure, or write the model as it is, stay.
    """
    for number_, step in enumerate(recipe.steps, start=1):
        if not (step.terms().changes or step.terms().final):
            continue
        try:
            shorter = without(recipe, number_)
            check(shorter)
        except SlimfaceError as error:
            yield Variant(number_, step, None, _needed(error))
        else:
            yield Variant(number_, step, shorter)


def without(recipe: Recipe, number: int) -> Recipe:
    """Return a recipe without one of its steps, counted from 1.

    Teachers that are later steps are numbered anew. What learns from the step itself learns from
    the one before it.
    """
    data = recipe.model_dump(mode="json")
    before, after = data["steps"][: number - 1], data["steps"][number:]

    def moved(teacher: int) -> int:
        return teacher - (teacher >= number)

    data["steps"] = [*before, *(teachers.renamed(step, moved) for step in after)]
    return Recipe.parse(data, where=f"{recipe.name} without step {number}")


def ablate(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    track: Callable[..., Any] | None = None,
    announce: Callable[[int, AnyStep, bool], None] = lambda number, step, cached: None,
    begin: Callable[[str], None] = lambda title: None,
) -> Iterator[LeftOut]:
    """Carry out the recipe, then without each of its steps, and note what each comes to.

    All share the steps of one run folder, so that what comes before the step that is left out is
    not repeated, and an ablation that was killed goes on. After each, the records of the run hold
    all rows until then.

    Args:
        recipe: The whole.
        folder: The run folder.
        device: As for ``run``, and so the next three.
        workers: Processes that prepare training pictures.
        track: Draws bars.
        announce: Called before each step.
        begin: Called with a title before each recipe.

    Yields:
        The whole recipe first.
    """
    how: dict[str, Any] = {"device": device, "workers": workers, "track": track}
    how |= {"announce": announce, "steps": folder / "steps"}
    begin("all steps")
    run(recipe, folder, **how)
    rows = [_measured(folder, 0, "")]
    yield rows[0]
    for variant in variants(recipe):
        number_, kind = variant.number, variant.step.kind
        if variant.recipe is None:
            row = LeftOut(without=number_, kind=kind, reason=variant.reason)
        else:
            begin(f"without step {number_} ({kind})")
            place = folder / FOLDER / f"without-{number_:02d}-{kind}"
            row = _tried(variant.recipe, place, number_, kind, how)
        rows.append(row)
        _note(folder, rows)
        yield row


def _tried(recipe: Recipe, place: Path, number_: int, kind: str, how: dict[str, Any]) -> LeftOut:
    try:
        run(recipe, place, **how)
    except SlimfaceError as error:
        return LeftOut(without=number_, kind=kind, reason=_first_line(error))
    return _measured(place, number_, kind)


def _measured(folder: Path, number_: int, kind: str) -> LeftOut:
    """Read off a finished run what its last model and file come to."""
    footprint = cost.footprint(load_checkpoint(folder / MODEL).network)
    done = read_run(folder)
    quality = score(done.entries)
    return LeftOut(
        without=number_,
        kind=kind,
        parameters=footprint.parameters,
        macs=footprint.macs,
        bytes=_whole(done.of("export")[-1:], "bytes"),
        latency_ms=_latency(done.of("benchmark")),
        score=None
        if quality is None
        else {"name": quality.name, "value": quality.value, "stamp": quality.stamp},
    )


def _whole(entries: tuple[Entry, ...], key: str) -> int | None:
    found = next((number(entry.record.get(key)) for entry in entries), None)
    return None if found is None else int(found)


def _latency(benchmarks: tuple[Entry, ...]) -> float | None:
    for entry in benchmarks:
        if entry.role == "after":
            return number(mapping(entry.record.get("total")).get("median_ms"))
    return None


def _note(folder: Path, rows: list[LeftOut]) -> None:
    """Put the rows into the records of the run, in place of earlier ones."""
    path = folder / RECORDS
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line.get("kind") != FOLDER]
    record = {"rows": [row.model_dump(mode="json") for row in rows]}
    kept.append({"step": -1, "name": FOLDER, "kind": FOLDER, "fingerprint": "", "record": record})
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _needed(error: SlimfaceError) -> str:
    return f"It cannot be left out: {_first_line(error)}"


def _first_line(error: SlimfaceError) -> str:
    return str(error).splitlines()[0]
