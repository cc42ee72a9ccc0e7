"""The five recipes of the survey on drawn breeds, one after the other: what each costs and reaches.

    python benchmarks/survey.py --out /tmp/survey

The same steps as on Oxford-IIIT Pet, in the same order, on pictures that need no network: heads of
drawn breeds, 32 pixels, a ResNet18 for the teacher's ResNet50 and a ResNet10 for the student's
ResNet18, from random weights. Finished steps are not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from slimface.recipe.cost import processor_seconds
from slimface.recipe.recipe import Recipe
from slimface.recipe.run import run
from slimface.recipe.shipped import open_recipe
from slimface.report.bills import score
from slimface.report.card import write_card
from slimface.report.run import read_run

NAMES = ("pets-teacher", "pets-kd", "pets-prune40", "pets-qat", "pets-mixed")
SIDE_PX = 32
SOURCE = {"kind": "drawn_breeds", "classes": 8, "train": 60, "val": 10, "test": 40,
          "size_px": SIDE_PX}  # fmt: skip
MODELS = {
    "classifier:resnet50": "classifier:resnet18",
    "classifier:resnet18": "classifier:resnet10t",
}
SHORT = {"batch_size": 32, "learning_rate": 0.002, "decay": "cosine", "decay_epochs": []}


def drawn(recipe: Recipe, out: Path, epochs: int) -> Recipe:
    """The same steps on drawn breeds, with little to learn from and for a short time."""
    data = recipe.model_dump(mode="json")
    model = f"{MODELS[data['model']]}@{SIDE_PX}"
    steps = [_small(step, out, epochs) for step in data["steps"]]
    given = {"model": model, "pretrained": False, "source": SOURCE, "steps": steps}
    return Recipe.parse({**data, **given}, where=recipe.name)


def _small(value: Any, out: Path, epochs: int) -> Any:
    if isinstance(value, list):
        return [_small(one, out, epochs) for one in value]
    if not isinstance(value, dict):
        return value
    small = {key: _small(one, out, epochs) for key, one in value.items()}
    if "epochs" in small and "batch_size" in small:
        # Those that were shorter than the training of the survey stay so in proportion.
        small |= SHORT | {"epochs": max(2, round(epochs * small["epochs"] / 100))}
        small["learning_rate"] *= min(1.0, value["learning_rate"] / 0.001)
    if "height_px" in small:
        small |= {"height_px": SIDE_PX, "width_px": SIDE_PX}
    if "sizes" in small:
        small["sizes"] = [[SIDE_PX, SIDE_PX]]
    if isinstance(small.get("teacher"), str) and small["teacher"].startswith("runs/"):
        small["teacher"] = str(out / small["teacher"].removeprefix("runs/"))
    return small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20, help="for the 100 of the survey")
    parser.add_argument("--only", default=",".join(NAMES))
    given = parser.parse_args()
    began, processor = time.monotonic(), processor_seconds()
    for name in given.only.split(","):
        recipe = drawn(open_recipe(Path(name)), given.out, given.epochs)
        started, used = time.monotonic(), processor_seconds()
        run(recipe, given.out / name, workers=0)
        write_card(given.out / name)
        told = read_run(given.out / name)
        scores = [
            f"{entry.name} {entry.step}: {100 * found.value:.1f}"
            for entry in told.of("accuracy")
            if (found := score([entry])) is not None
        ]
        exports = {e.record["file"]: e.record["bytes"] for e in told.of("export")}
        last = told.of("step")[-1].record["after"]
        print(
            json.dumps(
                {
                    "recipe": name,
                    "seconds": round(time.monotonic() - started),
                    "processor_seconds": round(processor_seconds() - used),
                    "top1": scores,
                    "parameters": last["parameters"],
                    "macs": last["macs"],
                    "bytes": exports,
                    "load": os.getloadavg()[0],
                }
            ),
            flush=True,
        )
    print(
        f"all: {time.monotonic() - began:.0f} s, processor {processor_seconds() - processor:.0f} s"
    )


if __name__ == "__main__":
    main()
