"""Timing: the benchmarks of a run, side by side where they were made alike."""

from collections.abc import Sequence

from slimface.core.benchmark import Benchmark
from slimface.report import quantities

Couple = tuple[Benchmark | None, Benchmark | None]
"""One configuration before and after; None where only the other side was measured."""


def pairs(before: Sequence[Benchmark], after: Sequence[Benchmark]) -> list[Couple]:
    """Return the benchmarks of equal configurations side by side, in the order of ``after``."""
    first = {_place(benchmark): benchmark for benchmark in before}
    last = {_place(benchmark): benchmark for benchmark in after}
    return [(first.get(place), last.get(place)) for place in {**last, **first}]


def headline(couples: Sequence[Couple]) -> Couple:
    """Return the pair to speak of first: two sides, a runtime that ships, a large input."""

    def rank(couple: Couple) -> tuple[bool, bool, int, int]:
        shown = couple[1] or couple[0]
        assert shown is not None
        pixels = shown.height * shown.width
        return None in couple, shown.runtime == "torch", shown.threads, -pixels

    return min(couples, key=rank, default=(None, None))


def title(benchmark: Benchmark) -> str:
    """Return the configuration in words."""
    threads = "1 thread" if benchmark.threads == 1 else f"{benchmark.threads} threads"
    return f"{benchmark.runtime}, {threads}, {quantities.sides(benchmark.width, benchmark.height)}"


def doubts(couples: Sequence[Couple]) -> list[str]:
    """Return why a reader should not trust the durations, if there is a reason."""
    every = [benchmark for couple in couples for benchmark in couple if benchmark is not None]
    busy = [b for b in every if b.load_average is not None and b.load_average > b.machine.cores]
    found = []
    if busy:
        found.append(
            f"The machine was busy with other work during {len(busy)} of {len(every)} benchmarks, "
            "so their durations are longer than those of a quiet one."
        )
    if any(a and b and _where(a) != _where(b) for a, b in couples):
        found.append(
            "Before and after were measured on different machines or versions; their durations "
            "cannot be compared."
        )
    return found


def _place(benchmark: Benchmark) -> tuple[str, int, int, int]:
    return benchmark.runtime, benchmark.height, benchmark.width, benchmark.threads


def _where(benchmark: Benchmark) -> tuple[str, int, tuple[tuple[str, str], ...]]:
    machine = benchmark.machine
    return machine.processor, machine.cores, tuple(sorted(machine.versions.items()))
