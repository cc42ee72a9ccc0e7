r"""What a teacher is worth: EResFD cut to 40 % of its MACs, trained with and without its parent.

    SLIMFACE_WIDER=../shared/data/wider SLIMFACE_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 \
        python benchmarks/distil.py --epochs 2 --seeds 0 1 2

Both ways start from the same cut, see the same crops of the 1,500 training pictures in the same
order, and are scored on the 120 validation pictures. The gain is that of pairs of one seed; its
95 % interval is Student's. What is finished is not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from slimface.recipe.recipe import Recipe
from slimface.recipe.run import run

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
BUDGET = "-60% macs@640x480"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Number of seeds -> the 97.5 % quantile of Student's t with one degree of freedom less."""

WAYS: dict[str, dict[str, Any]] = {
    "alone": {"kind": "multibox"},
    "taught": {"kind": "distill", "teacher": "eresfd"},
    "taught-half": {"kind": "distill", "teacher": "eresfd", "weight": 0.5},
    "taught-features": {"kind": "distill", "teacher": "eresfd", "feature_weight": 1.0},
    "by-extd-64": {"kind": "distill", "teacher": "extd-64"},
}
"""Name -> criterion. The first is what the others are compared with."""


def recipe(way: str, seed: int, epochs: int) -> Recipe:
    """The cut, the training, the score."""
    schedule = {
        "epochs": epochs,
        "batch_size": 16,
        "learning_rate": 0.002,
        "warmup_epochs": min(0.5, epochs / 10),
        "ema": 0.998,
    }
    steps = [
        {
            "kind": "prune",
            "importance": {"kind": "fpgm"},
            "allocator": {"kind": "uniform", "budget": BUDGET},
        },
        {"kind": "train", "size_px": 320, "schedule": schedule, "criterion": WAYS[way]},
        {"kind": "evaluate", "input": {"kind": "original", "max_pixels": 1700 * 1200}},
    ]
    return Recipe.parse(
        {
            "name": f"distil-{way}-{seed}",
            "model": "eresfd",
            "source": {"kind": "widerface"},
            "seed": seed,
            "steps": steps,
        },
        where="distil",
    )


def figures(folder: Path) -> dict[str, float]:
    """The average precisions of a finished run."""
    for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["kind"] == "evaluation":
            subsets = entry["record"]["subsets"]
            return {one["name"]: 100 * one["average_precision"] for one in subsets}
    raise SystemExit(f"{folder} holds no evaluation")


def gains(alone: list[float], taught: list[float]) -> str:
    """The mean gain with its interval, and that of each seed."""
    each = [b - a for a, b in zip(alone, taught, strict=True)]
    said = ", ".join(f"{gain:+.2f}" for gain in each)
    if len(each) not in STUDENT:
        return f"{mean(each):+.2f} ({said})"
    half = STUDENT[len(each)] * stdev(each) / len(each) ** 0.5
    return f"{mean(each):+.2f} ± {half:.2f} ({said})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["alone", "taught"])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "distil")
    chosen = parser.parse_args()
    os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider"))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in chosen.ways}
    for seed in chosen.seeds:
        for way in chosen.ways:
            folder = chosen.out / f"{chosen.epochs}-epochs" / f"{way}-{seed}"
            started, cpu = time.monotonic(), time.process_time()
            run(recipe(way, seed, chosen.epochs), folder, workers=0)
            wall, cpu = time.monotonic() - started, time.process_time() - cpu
            found[way].append(figures(folder))
            said = " / ".join(f"{value:.2f}" for value in found[way][-1].values())
            print(
                f"{way} {seed}: AP {said}; {cpu / 60:.1f} min CPU, {wall / 60:.1f} min", flush=True
            )
    first, *others = chosen.ways
    for way in others:
        for subset in found[way][0]:
            pairs = ([one[subset] for one in found[name]] for name in (first, way))
            print(f"{way} against {first}, {subset}: {gains(*pairs)}")


if __name__ == "__main__":
    main()
