"""Advice: which file to ship, and where fewer bits, channels or more threads do not pay."""

from collections.abc import Iterator, Sequence
from itertools import groupby, product

from slimface.core.benchmark import Benchmark
from slimface.core.matrix import Advice, Cell, Shipped, title

LOST = 0.005
"""A file is as good as the best of its model if its AP is at most this much lower."""

EQUAL = 0.05
"""Files whose times differ by less are equally fast: the smaller one is shipped."""

PAYS = 0.03
"""What saves less of the time than this does not pay."""


def advise(cells: Sequence[Cell]) -> Advice:
    """Return what follows from the cells that have figures."""
    measured = [cell for cell in cells if cell.benchmark is not None and not cell.refused]
    remarks = [
        *_precisions(measured),
        *_models(measured),
        *_threads(measured),
    ]
    return Advice(ship=tuple(_ship(measured)), remarks=tuple(dict.fromkeys(remarks)))


def _ship(cells: Sequence[Cell]) -> Iterator[Shipped]:
    def place(cell: Cell) -> tuple[str, int, int, int]:
        return cell.model, cell.height, cell.width, cell.threads

    files = [cell for cell in cells if cell.file is not None]
    for (model, height, width, threads), group in groupby(sorted(files, key=place), key=place):
        every = list(group)
        best = max((cell.quality.headline or 0 for cell in every if cell.quality), default=None)
        good = [cell for cell in every if best is None or _ap(cell) >= best - LOST]
        if len(every) < 2 or not good:
            continue
        fastest = min(_ms(cell) for cell in good)
        chosen = min(
            (cell for cell in good if _ms(cell) <= fastest * (1 + EQUAL)),
            key=lambda cell: (_bytes(cell), _ms(cell)),
        )
        assert chosen.file is not None
        yield Shipped(
            model=model,
            height=height,
            width=width,
            threads=threads,
            file=chosen.file,
            reason=_reason(chosen, every, best),
        )


def _reason(chosen: Cell, every: Sequence[Cell], best: float | None) -> str:
    words = [
        f"{chosen.runtime}, {chosen.precision}: {_ms(chosen):.2f} ms, {_bytes(chosen):,} bytes"
    ]
    if best is not None:
        words.append(f"AP {100 * _ap(chosen):.1f} (the best of its files {100 * best:.1f})")
    slowest = max(every, key=_ms)
    if _ms(slowest) > _ms(chosen) * (1 + EQUAL):
        words.append(
            f"{_ms(slowest) / _ms(chosen):.1f} times as fast as {slowest.runtime}, "
            f"{slowest.precision}"
        )
    return ", ".join(words)


def _precisions(cells: Sequence[Cell]) -> Iterator[str]:
    """Where fewer bits save no time, or cost accuracy."""
    for cell, whole in product(cells, cells):
        if not _same(cell, whole, "model", "runtime", *_PLACE):
            continue
        if whole.precision != "float32" or cell.precision == "float32":
            continue
        where = f"{title(cell.model)}, {cell.precision} in {cell.runtime}, {_words(cell)}"
        if _saved(whole, cell) < PAYS:
            bytes_saved = _bytes(whole) - _bytes(cell)
            size = f"{abs(bytes_saved):,} bytes {'smaller' if bytes_saved >= 0 else 'larger'}"
            yield f"{where}: does not pay in time ({_times(whole, cell)}); the file is {size}."
        if cell.quality and whole.quality and _ap(whole) - _ap(cell) > LOST:
            lost = 100 * (_ap(whole) - _ap(cell))
            yield f"{where}: costs {lost:.1f} points of AP ({100 * _ap(whole):.1f} in float32)."


def _models(cells: Sequence[Cell]) -> Iterator[str]:
    """Where a model of fewer multiply-accumulates than the first one is not faster for it."""
    for cell, first in product(cells, cells):
        if first.model != cells[0].model or cell.model == first.model:
            continue
        if not _same(cell, first, "runtime", "precision", *_PLACE):
            continue
        more, fewer = _benchmark(first).macs, _benchmark(cell).macs
        if more and fewer and fewer < more and _saved(first, cell) < PAYS:
            yield (
                f"{title(cell.model)} in {cell.runtime}, {cell.precision}, {_words(cell)}: "
                f"{1 - fewer / more:.0%} fewer MACs than {title(first.model)} do not pay in time "
                f"({_times(first, cell)})."
            )


def _threads(cells: Sequence[Cell]) -> Iterator[str]:
    """Where more threads are not faster."""
    for cell, one in product(cells, cells):
        if not _same(cell, one, "model", "file", "runtime", "precision", "height", "width"):
            continue
        if one.threads < cell.threads and _saved(one, cell) < PAYS:
            yield (
                f"{title(cell.file or cell.model)} in {cell.runtime}, {cell.width}x{cell.height}: "
                f"{cell.threads} threads are not faster than {one.threads} ({_times(one, cell)})."
            )


def _saved(before: Cell, after: Cell) -> float:
    """Return the share of the time that ``after`` saves; negative if it is slower.

    The more cautious of two figures: the medians of all runs, and those of the best rounds, which
    what else the machine did touched least.
    """
    a, b = _benchmark(before).total, _benchmark(after).total
    return 1 - max(b.median_ms / a.median_ms, b.best_round_ms / a.best_round_ms)


def _times(before: Cell, after: Cell) -> str:
    return f"{_ms(before):.2f} ms before, {_ms(after):.2f} ms after"


_PLACE = ("height", "width", "threads")


def _same(first: Cell, second: Cell, *names: str) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in names)


def _words(cell: Cell) -> str:
    threads = "1 thread" if cell.threads == 1 else f"{cell.threads} threads"
    return f"{cell.width}x{cell.height}, {threads}"


def _benchmark(cell: Cell) -> Benchmark:
    assert cell.benchmark is not None
    return cell.benchmark


def _ms(cell: Cell) -> float:
    return _benchmark(cell).total.median_ms


def _bytes(cell: Cell) -> int:
    return _benchmark(cell).file_bytes or 0


def _ap(cell: Cell) -> float:
    return (cell.quality.headline if cell.quality else None) or 0.0
