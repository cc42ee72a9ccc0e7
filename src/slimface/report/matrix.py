"""Matrix: every runtime, precision and size as rows, as CSV, and as a page with its plots."""

import csv
import io
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby

from slimface.core.matrix import Cell, Matrix, title
from slimface.report import quantities
from slimface.report.figures import Series, fitted, lines
from slimface.report.markup import Html, join, tag

COLUMNS = (
    "model", "runtime", "precision", "input", "AP", "ms", "p10-p90", "file", "memory", "start ms",
)  # fmt: skip

_TONES = ("after", "part1", "held", "part2", "part3", "before")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>slimface benchmark</title>
<style>
{style}
.wide-table {{ overflow-x: auto; }} .line {{ stroke-opacity: 0; }} .dot {{ stroke-width: 9; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def terse(matrix: Matrix) -> tuple[list[list[str]], list[list[str]]]:
    """Return the cells as two tables that fit a terminal: what is found and when; and the costs.

    Only the figure of the hardest subset is in them, and a cell without figures is not.
    """
    first, second = [], []
    for cell in matrix.cells:
        if cell.benchmark is None:
            continue
        model, runtime, precision, place, _, *times, size, memory, start = _row(cell)
        name = [model, f"{runtime} {precision}", place]
        ap = cell.quality.headline if cell.quality else None
        first.append([*name, "" if ap is None else quantities.points(ap), *times])
        second.append([*name, size, memory, start])
    return first, second


def rows(matrix: Matrix) -> list[list[str]]:
    """Return the cells as people read them, in the order of ``COLUMNS``."""
    return [_row(cell) for cell in matrix.cells]


def notes(matrix: Matrix) -> list[str]:
    """Return why cells are empty, on what was scored, and where it was measured."""
    found = [
        f"{title(cell.model)}, {cell.runtime}, {cell.precision}, {cell.width}x{cell.height}: "
        + " ".join(cell.refused.split())
        for cell in matrix.cells
        if cell.refused
    ]
    protocols = {cell.quality.stamp: cell.quality.protocol for cell in matrix.cells if cell.quality}
    found += [
        f"Protocol {stamp}: {one.scope}, input {one.input}, score >= {one.score_floor:g}, "
        f"NMS {one.nms_overlap:g}, evaluator {one.evaluator}."
        for stamp, one in protocols.items()
    ]
    measured = [cell.benchmark for cell in matrix.cells if cell.benchmark]
    if measured:
        last = measured[-1]
        loads = [b.load_average for b in measured if b.load_average is not None]
        words = f"load average {min(loads):g} to {max(loads):g}" if loads else "load unknown"
        found.append(
            f"{last.machine.processor}, {last.machine.cores} cores, {words}, "
            f"{last.machine.system}; {last.runs} runs in {last.rounds} rounds, side by side."
        )
        if loads and max(loads) > last.machine.cores + 1:
            found.append("The machine was busy with other work: these durations are too long.")
    return found


def as_csv(matrix: Matrix) -> str:
    """Return one row a cell, with a line of names; empty where nothing is known."""
    subsets = list(
        dict.fromkeys(
            name for cell in matrix.cells if cell.quality for name in cell.quality.average_precision
        )
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_FIELDS, *(f"ap_{name}" for name in subsets), "refused"])
    writer.writeheader()
    for cell in matrix.cells:
        precisions = cell.quality.average_precision if cell.quality else {}
        figures = {f"ap_{name}": value for name, value in precisions.items()}
        writer.writerow({**_flat(cell), **figures, "refused": cell.refused})
    return text.getvalue()


_FIELDS = (
    "model", "runtime", "precision", "width", "height", "threads", "file", "median_ms", "p10_ms",
    "p90_ms", "best_round_ms", "preprocess_ms", "network_ms", "postprocess_ms", "open_ms",
    "first_ms", "memory_bytes", "file_bytes", "parameters", "macs", "load_average", "stamp",
)  # fmt: skip


def page(matrix: Matrix) -> str:
    """Return a self-contained page: plots, table, advice. It needs no network and no script."""
    style = files("slimface.report").joinpath("card.css").read_text(encoding="utf-8")
    sections = [*_figures(matrix), _table(matrix), _advice(matrix)]
    head = tag("header", tag("h1", "Benchmark"))
    return _PAGE.format(style=style, body=join(head, tag("main", *sections)))


def _row(cell: Cell) -> list[str]:
    threads = f"{cell.width}x{cell.height} {cell.threads}t"
    names = [title(cell.model), cell.runtime, cell.precision, threads]
    b = cell.benchmark
    if b is None:
        return [*names, "", "", "", "", "", cell.refused.partition("\n")[0] and "refused"]
    figures = cell.quality.average_precision.values() if cell.quality else ()
    return [
        *names,
        " / ".join("?" if value is None else quantities.points(value) for value in figures),
        f"{b.total.median_ms:.2f}",
        f"{b.total.p10_ms:.1f}-{b.total.p90_ms:.1f}",
        "" if b.file_bytes is None else quantities.size(b.file_bytes),
        quantities.size(b.memory_bytes),
        f"{b.open_ms + b.first_ms:.0f}",
    ]


def _flat(cell: Cell) -> dict[str, object]:
    b = cell.benchmark
    known: dict[str, object] = {
        name: getattr(cell, name) for name in _FIELDS[: _FIELDS.index("median_ms")]
    }
    if b is not None:
        same = ("open_ms", "first_ms", "memory_bytes", "file_bytes", "parameters", "macs")
        known |= {name: getattr(b, name) for name in (*same, "load_average")}
        spread = ("median_ms", "p10_ms", "p90_ms", "best_round_ms")
        known |= {name: getattr(b.total, name) for name in spread}
        parts = ("preprocess", "network", "postprocess")
        known |= {f"{name}_ms": getattr(b, name).median_ms for name in parts}
    if cell.quality is not None:
        known["stamp"] = cell.quality.stamp
    return known


def _figures(matrix: Matrix) -> list[Html]:
    """A plot for each size and number of threads: AP over ms; file over ms where there is no AP."""

    def place(cell: Cell) -> tuple[int, int, int]:
        return cell.height, cell.width, cell.threads

    shown = sorted((cell for cell in matrix.cells if cell.benchmark), key=place)
    return [
        _figure(list(group), quantities.sides(width, height), threads)
        for (height, width, threads), group in groupby(shown, key=place)
    ]


def _figure(cells: Sequence[Cell], sides: str, threads: int) -> Html:
    has_ap = any(cell.quality for cell in cells)
    series, keys = [], []
    names = list(dict.fromkeys(cell.runtime for cell in cells))
    for i, runtime in enumerate(names):
        own = [c for c in cells if c.runtime == runtime and (c.quality or not has_ap)]
        points = [(_ms(cell), _up(cell) if has_ap else _kilobytes(cell)) for cell in own]
        if not points:
            continue
        tone = _TONES[i % len(_TONES)]
        notes = [
            f"{title(c.model)}, {runtime}, {c.precision}: {x:.2f} ms, {y:.1f}"
            for c, (x, y) in zip(own, points, strict=True)
        ]
        series.append(Series(runtime, tone, points, notes))
        keys.append(tag("span", tag("i", class_=f"key {tone}"), runtime))
    spots = [point for one in series for point in one.points]
    label = "AP, percent" if has_ap else "file, kB"
    across = fitted("milliseconds of a whole detection", [x for x, _ in spots], zero=True)
    drawn = lines(
        series,
        across,
        fitted(label, [y for _, y in spots]),
        summary=f"{label} over milliseconds: "
        + "; ".join(note for one in series for note in one.notes),
    )
    words = "1 thread" if threads == 1 else f"{threads} threads"
    return tag("section", tag("h2", f"{sides}, {words}"), tag("p", *keys, class_="keys"), drawn)


def _table(matrix: Matrix) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in COLUMNS))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows(matrix)
    ]
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("section", tag("h2", "All figures"), tag("div", table, class_="wide-table"))


def _advice(matrix: Matrix) -> Html:
    items = [
        tag("li", text)
        for text in (*map(str, matrix.advice.ship), *matrix.advice.remarks, *notes(matrix))
    ]
    return tag("section", tag("h2", "What follows"), tag("ul", *items, class_="plain"))


def _ms(cell: Cell) -> float:
    return cell.benchmark.total.median_ms if cell.benchmark else 0.0


def _up(cell: Cell) -> float:
    return 100 * (cell.quality.headline or 0.0) if cell.quality else 0.0


def _kilobytes(cell: Cell) -> float:
    size = cell.benchmark.file_bytes if cell.benchmark else None
    return (size or 0) / 1e3
