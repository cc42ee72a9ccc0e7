"""Budgets in milliseconds: is the file that is delivered as fast as was asked?

    python benchmarks/latency_budget.py eresfd retinaface-mobilenet025

For each model and each budget: prune, export the result once more, and measure that file beside the
parent's in ONNX Runtime, one thread, in turns, in processor time. What was asked is within 5 %.
"""

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

from slimface.compress.place import Place
from slimface.compress.prune.step import Prune
from slimface.errors import BudgetError
from slimface.model import zoo
from slimface.step import Context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["eresfd", "retinaface-mobilenet025"])
    parser.add_argument("--allocator", default="uniform", choices=["uniform", "global", "cost"])
    parser.add_argument("--saved", type=float, nargs="+", default=[10, 20, 30, 40, 50])
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    place = Place()
    for model in given.models:
        detector = zoo.load(model)
        for saved in given.saved:
            start = time.process_time()
            budget = f"-{saved:g}% ms@{place}"
            step = Prune.model_validate({"allocator": {"kind": given.allocator, "budget": budget}})
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                try:
                    pruned = step(detector, Context(folder=folder))
                except BudgetError as error:
                    print(f"| {model} | {given.allocator} | {budget} | refused: {error} |")
                    continue
                taken = time.process_time() - start
                files = [place.export(detector, folder / "a"), place.export(pruned, folder / "b")]
                before, after = place.network_ms(files, rounds=30)
            off = after / ((1 - saved / 100) * before) - 1
            print(
                f"| {model} | {given.allocator} | {budget} | {before:.2f} -> {after:.2f} ms "
                f"({100 * (after / before - 1):+.1f} %) | off by {100 * off:+.1f} % "
                f"| {taken:.0f} s | load {os.getloadavg()[0]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
