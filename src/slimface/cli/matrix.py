"""The matrix of ``slimface benchmark``: measured, shown and written as it grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimface.cli.console import diary, print_json, print_table, track
from slimface.errors import UsageError
from slimface.files import write_text

if TYPE_CHECKING:
    from slimface.bench.matrix import Scored
    from slimface.core.matrix import Cell, Matrix


def measure_matrix(
    models: Sequence[str],
    runtimes: str,
    asked: dict[str, Any],
    *,
    picture: Any,
    data: str | None,
    limit: int | None,
    out: Sequence[Path],
    as_json: bool,
) -> None:
    """Measure, and show what there is at the end, or when it is stopped.

    Args:
        models: As they were named.
        runtimes: As it was given; empty: models as they are.
        asked: Fields of ``slimface.bench.matrix.Grid``.
        picture: What to detect on.
        data: Folder to score on.
        limit: Most pictures of it.
        out: Files to write, by suffix.
        as_json: Print JSON instead of tables.
    """
    wrong = [place for place in out if place.suffix not in (".json", ".csv", ".html")]
    if wrong:
        raise UsageError(f"{wrong[0]}: a matrix is written as .json, .csv or .html.\nChoose one.")
    from slimface.bench.contenders import runtimes_named
    from slimface.bench.matrix import Grid, joined, matrix

    grid = Grid(runtimes_named(runtimes) if runtimes else (), **asked)
    cells: list[Cell] = []
    try:
        for cell in matrix(models, grid, picture=picture, scored=_scored(data, limit), track=track):
            cells.append(cell)
            write(joined(cells), out)
    finally:
        # After Ctrl-C or a crash as well: what was measured is worth having.
        found = joined(cells)
        if as_json:
            print_json(found.model_dump(mode="json"))
        elif cells:
            show(found)
        for place in out if cells else ():
            diary.print(f"Written: {place}", markup=False)


def write(matrix: "Matrix", places: Sequence[Path]) -> None:
    """Write a matrix to each place, by its suffix."""
    from slimface.report.matrix import as_csv, page

    writers = {".json": lambda m: m.model_dump_json(indent=1) + "\n", ".csv": as_csv, ".html": page}
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, writers[place.suffix](matrix))


def show(matrix: "Matrix") -> None:
    """Print two tables, what to ship, and why cells are empty."""
    from slimface.report.matrix import notes, terse

    stamps = {cell.quality.stamp for cell in matrix.cells if cell.quality}
    title = "Milliseconds of a whole detection"
    title += f", AP by protocol {', '.join(sorted(stamps))}" if stamps else ""
    what = ["model", "in", "input"]
    first, second = terse(matrix)
    print_table(title, [*what, "AP", "median", "p10-p90"], first)
    print_table("File, memory, start (ms)", [*what, "file", "memory", "start"], second)
    for line in (*matrix.advice.ship, *matrix.advice.remarks, *notes(matrix)):
        diary.print(str(line), markup=False)


def _scored(data: str | None, limit: int | None) -> "Scored | None":
    if data is None:
        return None
    from slimface.bench.matrix import Scored
    from slimface.cli.run import source_of

    source = source_of(data)

    from slimface.data.folders import ClassSource
    from slimface.evaluate.widerface import truth_of

    if isinstance(source, ClassSource):
        raise UsageError(
            f"--data {data} shows classes, and a matrix is scored on faces.\n"
            "Score classifiers with: slimface evaluate"
        )
    pictures = source.pictures("val")
    truth = truth_of(pictures, source.folder())
    if limit is not None and limit < len(pictures):
        pictures = pictures.subset([i * len(pictures) // limit for i in range(limit)])
    return Scored(pictures, truth.restricted(one.name for one in pictures))
