"""30 % of EResFD's MACs removed in several ways, each with the same training: AP and milliseconds.

    python benchmarks/thirty_percent.py --epochs 8             the short version: see docs/ledger.md
    python benchmarks/thirty_percent.py --epochs 32 --only taught-fpgm,taught-l1,mended-lamp

Every way starts from the published weights, sees the same pictures equally often, and is scored on
the validation pictures as an ONNX file; all files are timed side by side. Those whose names begin
with ``taught`` and ``mended`` share another training than the rest: the whole network teaches, and
the batch norms are at rest. The former have their norms' statistics taken anew before it, the
latter all their weights. Needs SLIMFACE_WIDER and
SLIMFACE_WEIGHTS (or ../shared). What is finished is not repeated: `--only fpgm,l1` may come first.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimface.bench.latency import benchmark
from slimface.recipe.recipe import Recipe
from slimface.recipe.run import run

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
BUDGET = "-30% macs@640x480"
RATE = 0.002
"""Peak learning rate."""

LOOK = {"batches": 8, "batch_size": 16}
"""Pictures for the importances that need them."""


def train(epochs: int, size_px: int = 320, learning_rate: float = RATE) -> dict[str, Any]:
    """The training that all ways share."""
    schedule = {
        "epochs": epochs,
        "batch_size": 16 if size_px <= 320 else 8,
        "learning_rate": learning_rate,
        "warmup_epochs": min(0.5, epochs / 10),
        "ema": 0.998,
    }
    return {"kind": "train", "size_px": size_px, "schedule": schedule}


def taught(epochs: int) -> dict[str, Any]:
    """The training that all taught ways share: crops have other statistics than pictures.

    Small batches and windows at the scale of the picture each brought a point in four epochs.
    """
    plain = train(epochs, learning_rate=RATE / 2)
    return {
        **plain,
        "schedule": {**plain["schedule"], "batch_size": 8, "frozen_norms": True},
        "criterion": {"kind": "distill", "teacher": "eresfd", "weight": 0.7},
        "augment": {"kind": "s3fd", "native_share": 0.5},
    }


def repaired(kind: str, cut: dict[str, Any]) -> dict[str, Any]:
    """A cut whose rest is repaired on 192 training pictures."""
    return {**cut, "repair": {"kind": kind, "look": {"batches": 12, "batch_size": 16}}}


def prune(importance: str, allocator: str, multiple_of: int = 1) -> dict[str, Any]:
    """One cut down to the budget."""
    return {
        "kind": "prune",
        "importance": {"kind": importance},
        "allocator": {"kind": allocator, "budget": BUDGET, "multiple_of": multiple_of},
        "look": LOOK,
    }


def ways(epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Name of a way -> its steps; each trains for ``epochs`` in all."""
    rounds = max(min(4, epochs // 2), 1)
    each = max(epochs // (2 * rounds), 1)
    half = max(epochs // 2, 1)
    blocks = prune("l2", "cost", 8)
    step_by_step = {"kind": "iterative_prune", "rounds": rounds, "train": train(each)}
    uniform = {kind: prune(kind, "uniform") for kind in ("fpgm", "l1")}
    return {
        "taught-fpgm": [repaired("norms", uniform["fpgm"]), taught(epochs)],
        "taught-l1": [repaired("norms", uniform["l1"]), taught(epochs)],
        "mended-fpgm": [repaired("reconstruct", uniform["fpgm"]), taught(epochs)],
        "mended-lamp": [repaired("reconstruct", prune("lamp", "cost")), taught(epochs)],
        "mended-lamp-4": [repaired("reconstruct", prune("lamp", "cost", 4)), taught(epochs)],
        "uniform-fpgm": [prune("fpgm", "uniform"), train(epochs)],
        "cost-l2-8": [blocks, train(epochs)],
        "uniform-l1": [prune("l1", "uniform"), train(epochs)],
        "cost-l2": [prune("l2", "cost"), train(epochs)],
        "fade-l2-8": [
            {"kind": "fade_out", "prune": blocks, "train": train(half)},
            train(epochs - half),
        ],
        "soft-l2-8": [
            {"kind": "soft_prune", "prune": blocks, "train": train(half)},
            train(epochs - half),
        ],
        "iterative-l2-8": [{**step_by_step, "prune": blocks}, train(epochs - rounds * each)],
    }


def recipes(epochs: int, finish: int) -> Iterator[Recipe]:
    """The model as it is published, and every way."""
    score = [{"kind": "evaluate"}, {"kind": "export", "file": "model.onnx"}]
    last = [train(finish, 640, RATE / 3)] if finish else []
    steps = {"before": [], **{name: [*way, *last] for name, way in ways(epochs).items()}}
    for name, way in steps.items():
        data = {
            "name": f"thirty-{name}",
            "model": "eresfd",
            "source": {"kind": "widerface"},
            "seed": 42,
            "steps": [*way, *score],
        }
        yield Recipe.parse(data, where=name)


def scores(folder: Path) -> dict[str, Any]:
    """AP, parameters and MACs from a run's records."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    last = {line["kind"]: line["record"] for line in lines}
    seconds = sum(
        line["record"]["processor_seconds"]
        for line in lines
        if line["kind"] == "step" and line["record"]["kind"] not in ("evaluate", "export")
    )
    return {"evaluation": last["evaluation"], "cut": last.get("prune"), "seconds": seconds}


def main() -> int:
    """Run what is asked for, and print a table for the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="of training at 320 px, for each way")
    parser.add_argument("--finish", type=int, default=0, help="further epochs at 640 px")
    parser.add_argument("--only", default="", help="names with commas between; none: all")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "thirty")
    parser.add_argument("--rounds", type=int, default=7, help="of the benchmark")
    chosen = parser.parse_args()
    os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider"))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = {"before", *filter(None, chosen.only.split(","))}
    plans = {
        plan.name.removeprefix("thirty-"): plan for plan in recipes(chosen.epochs, chosen.finish)
    }
    if wanted - set(plans):
        parser.error(f"there is no {', '.join(wanted - set(plans))}; there are {', '.join(plans)}")
    found = {}
    for name, plan in plans.items():
        if name in wanted or len(wanted) == 1:
            print(f"{name} …", file=sys.stderr, flush=True)
            run(plan, chosen.out / name)
            found[name] = scores(chosen.out / name)
    files = {name: chosen.out / name / "model.onnx" for name in found}
    times = dict(zip(files, benchmark(list(files.values()), rounds=chosen.rounds), strict=True))
    print("| way | parameters | MACs | AP easy / medium / hard | ms | training, processor min |")
    print("|---|---|---|---|---|---|")
    for name, one in found.items():
        after = one["cut"]["after"] if one["cut"] else {"parameters": 92_208, "macs": 295_100_000}
        figures = " / ".join(f"{100 * ap:.1f}" for ap in precisions(one["evaluation"]))
        print(
            f"| {name} | {after['parameters']:,} | {after['macs'] / 1e6:.1f} M | {figures} "
            f"| {times[name].total.best_round_ms:.2f} | {one['seconds'] / 60:.1f} |"
        )
    return 0


def precisions(evaluation: dict[str, Any]) -> list[float]:
    """Average precision of easy, medium and hard."""
    found = {subset["name"]: subset["average_precision"] for subset in evaluation["subsets"]}
    return [found[name] for name in ("easy", "medium", "hard")]


if __name__ == "__main__":
    sys.exit(main())
