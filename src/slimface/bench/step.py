"""Measure: the step that times the exported files on this machine."""

from typing import Literal

from pydantic import Field

from slimface.bench.latency import benchmark
from slimface.core.value import Value
from slimface.errors import RecipeError
from slimface.loading import load_any
from slimface.model.detector import Detector
from slimface.order import FILE, Terms
from slimface.step import Context, Role


class Measure(Value):
    """Milliseconds and memory of the first and the last exported file, side by side."""

    kind: Literal["benchmark"] = "benchmark"
    sizes: tuple[tuple[int, int], ...] = ((480, 640),)
    """Height and width of the input."""

    threads: tuple[int, ...] = (1,)
    rounds: int = Field(default=5, gt=0)
    runs: int = Field(default=20, gt=0)

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(needs=frozenset({FILE}), changes=False)

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Record the benchmarks and return the detector as it came."""
        if not context.exported:
            raise RecipeError(
                "There is no exported file to measure.\nPut an export step before the benchmark."
            )
        first, last = context.exported[0], context.exported[-1]
        files = [first] if first == last else [first, last]
        digest = load_any(last).fingerprint()
        measured = benchmark(
            files, sizes=self.sizes, threads=self.threads, rounds=self.rounds, runs=self.runs
        )
        total = len(files) * len(self.sizes) * len(self.threads)
        for result in context.track(measured, "benchmark", total=total):
            role: Role = "after" if result.model_fingerprint == digest else "before"
            context.record("benchmark", result, role=role)
        return detector
