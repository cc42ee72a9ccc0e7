r"""Short trainings of each family: onwards from published weights, and from scratch on drawn faces.

    SLIMFACE_WIDER=../shared/data/wider SLIMFACE_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 \
        python benchmarks/short_training.py [eresfd yunet-n extd-32 drawn:yunet-n drawn:extd-32]

``NAME`` trains the published weights on, by the preset of the family at a tenth of its rate, on the
1,500 pictures, and scores them on the 120 before and after. ``drawn:NAME`` starts from random
weights on 800 drawn scenes and scores 80 others. Run again, it goes on where it was stopped.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch

from slimface.data.source import DrawnScenes, WiderFace
from slimface.model import zoo
from slimface.recipe.recipe import Recipe
from slimface.recipe.run import run
from slimface.report.run import read_run
from slimface.train.presets import adapted, preset

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

ONWARDS: dict[str, dict[str, Any]] = {
    "eresfd": {"epochs": 4},
    "yunet-n": {"epochs": 4, "batch_size": 16},
    "extd-32": {"epochs": 1},
}
"""What differs from the preset. Crops are of 320 pixels."""

# The published courses last for days; so short, another optimizer learns more.
SCRATCH: dict[str, dict[str, Any]] = {
    "eresfd": {"epochs": 14, "learning_rate": 3e-3},
    "yunet-n": {"epochs": 14, "batch_size": 16, "learning_rate": 3e-3, "optimizer": "adamw"},
    "extd-32": {"epochs": 8, "learning_rate": 3e-3, "optimizer": "adamw"},
}
"""The same, from scratch. Crops are of 160 pixels."""


def recipe(task: str) -> Recipe:
    """The training of a task, between two evaluations if it starts from published weights."""
    drawn, _, name = task.rpartition(":")
    changes, size_px = (SCRATCH[name], 160) if drawn else (ONWARDS[name], 320)
    course = adapted(
        preset(zoo.entry(name).spec), onwards=not drawn, frozen_norms=not drawn, **changes
    )
    plan = course.schedule
    if drawn:
        plan = plan.model_copy(update={"ema": 0.99, "warmup_epochs": 1.0, "decay": "cosine"})
    course = course.model_copy(update={"size_px": size_px, "schedule": plan})
    score = {"kind": "evaluate", "input": {"kind": "original", "max_pixels": 1700 * 1200}}
    if name == "yunet-n" and not drawn:
        score |= {"score_floor": 0.02, "nms_overlap": 0.45}
    source = DrawnScenes(train=800, val=80) if drawn else WiderFace()
    steps = [course.model_dump(mode="json"), score]
    return Recipe.parse(
        {
            "name": f"short-{task.replace(':', '-')}",
            "model": name,
            "pretrained": not drawn,
            "source": source.model_dump(mode="json"),
            "steps": steps if drawn else [score, *steps],
        },
        where="short_training",
    )


def main() -> None:
    tasks = [*ONWARDS, *(f"drawn:{name}" for name in SCRATCH)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(tasks))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "short")
    chosen = parser.parse_args()
    unknown = set(chosen.tasks) - set(tasks)
    if unknown:
        parser.error(
            f"no task is called {', '.join(sorted(unknown))}; there are {', '.join(tasks)}"
        )
    os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider"))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    torch.set_num_threads(1)
    for task in chosen.tasks or tasks:
        folder = chosen.out / task.replace(":", "-")
        started, cpu = time.monotonic(), time.process_time()
        run(recipe(task), folder, workers=0)
        wall, cpu = time.monotonic() - started, time.process_time() - cpu
        print(f"{task}: {cpu / 60:.1f} min of processor time, {wall / 60:.1f} min in all")
        for entry in read_run(folder).entries:
            if entry.kind == "evaluation":
                figures = {s["name"]: s["average_precision"] for s in entry.record["subsets"]}
                said = " / ".join(f"{100 * ap:.2f}" for ap in figures.values())
                print(f"  step {entry.step}: AP {' / '.join(figures)} {said}", flush=True)


if __name__ == "__main__":
    main()
