"""Advice: which file to ship, and where fewer bits, channels or more threads do not pay."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from slimface.core.benchmark import Benchmark
from slimface.core.matrix import Advice, Cell, Shipped

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


def saved(before: Benchmark, after: Benchmark) -> float:
    """Return the share of the time that ``after`` saves; negative if it is slower.

    The more cautious of two figures: the medians of all runs, and those of the best rounds, which
    what else the machine did touched least.
    """
    return 1 - max(
        after.total.median_ms / before.total.median_ms,
        after.total.best_round_ms / before.total.best_round_ms,
    )


def _ship(cells: Sequence[Cell]) -> Iterator[Shipped]:
    def place(cell: Cell) -> tuple[str, int, int, int]:
        return cell.model, cell.height, cell.width, cell.threads

    files = [cell for cell in cells if cell.file is not None]
    for (model, height, width, threads), group in groupby(sorted(files, key=place), key=place):
        every = list(group)
        best = max((cell.quality.headline or 0 for cell in every if cell.quality), default=None)
        good = [cell for cell in every if best is None or _ap(cell) >= best - LOST]
        if not good:
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
    for cell in cells:
        for whole in cells:
            if whole.precision != "float32" or cell.precision == "float32":
                continue
            if _place(cell) != _place(whole) or cell.runtime != whole.runtime:
                continue
            if cell.model != whole.model:
                continue
            a, b = _benchmark(whole), _benchmark(cell)
            where = f"{cell.model}, {cell.precision} in {cell.runtime}, {_words(cell)}"
            gain = saved(a, b)
            if gain < PAYS:
                yield (
                    f"{where}: does not pay in time ({_ms(whole):.2f} ms in float32, "
                    f"{_ms(cell):.2f} ms); it saves {_bytes(whole) - _bytes(cell):,} bytes."
                )
            if cell.quality and whole.quality and _ap(whole) - _ap(cell) > LOST:
                yield (
                    f"{where}: costs {100 * (_ap(whole) - _ap(cell)):.1f} points of AP "
                    f"({100 * _ap(whole):.1f} in float32)."
                )


def _models(cells: Sequence[Cell]) -> Iterator[str]:
    """Where a model of fewer multiply-accumulates than the first one is not faster for it."""
    names = list(dict.fromkeys(cell.model for cell in cells))
    for cell in cells:
        for first in cells:
            if first.model != names[0] or cell.model == names[0]:
                continue
            if _place(cell) != _place(first) or cell.runtime != first.runtime:
                continue
            if cell.precision != first.precision:
                continue
            a, b = _benchmark(first), _benchmark(cell)
            if not a.macs or not b.macs or b.macs >= a.macs:
                continue
            fewer, gain = 1 - b.macs / a.macs, saved(a, b)
            if gain < PAYS:
                where = f"{cell.model} in {cell.runtime}, {cell.precision}, {_words(cell)}"
                yield (
                    f"{where}: {fewer:.0%} fewer MACs than {first.model} do not pay in time "
                    f"({_ms(first):.2f} ms and {_ms(cell):.2f} ms)."
                )


def _threads(cells: Sequence[Cell]) -> Iterator[str]:
    """Where more threads are not faster."""
    for cell in cells:
        for one in cells:
            same = (cell.file or cell.model) == (one.file or one.model)
            sizes = (cell.height, cell.width) == (one.height, one.width)
            if not (same and sizes and cell.runtime == one.runtime and one.threads < cell.threads):
                continue
            if saved(_benchmark(one), _benchmark(cell)) < PAYS:
                yield (
                    f"{Path(cell.file or cell.model).name} in {cell.runtime}, "
                    f"{cell.width}x{cell.height}: {cell.threads} threads are not faster than "
                    f"{one.threads} ({_ms(cell):.2f} ms and {_ms(one):.2f} ms)."
                )


def _place(cell: Cell) -> tuple[int, int, int]:
    return cell.height, cell.width, cell.threads


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
