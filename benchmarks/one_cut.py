"""What one cut of 30 % of EResFD's MACs loses, by importance and allocator, before any training.

    python benchmarks/one_cut.py

The loss on held-out training pictures (320 px): at once, after the statistics of the batch norms
were taken anew, and after all weights were solved for instead. Needs SLIMFACE_WIDER and
SLIMFACE_WEIGHTS (or ../shared). 8 minutes on one core.
"""

import os
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import TypeAdapter

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Allocator
from slimface.compress.prune.step import Prune
from slimface.compress.repair.norms import recalibrate_
from slimface.compress.repair.reconstruct import Answers, remaining_outputs
from slimface.data.batches import Batch, Batches
from slimface.data.pictures import PictureSet
from slimface.data.source import WiderFace
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.model import zoo
from slimface.model.channels import channel_groups
from slimface.model.surgery import remove_channels
from slimface.step import Context
from slimface.train.criterion import MultiBox
from slimface.train.loop import validation_loss
from slimface.train.step import split

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMPORTANCES = (
    {"kind": "l1"}, {"kind": "l2"}, {"kind": "fpgm"}, {"kind": "lamp"}, {"kind": "norm_scale"},
    {"kind": "activation"}, {"kind": "taylor"}, {"kind": "taylor", "of": "weight"},
)  # fmt: skip
ALLOCATORS = (("uniform", 1), ("global", 1), ("cost", 1), ("cost", 4), ("cost", 8))


def batches(pictures: PictureSet, augment: Augment, count: int, seed: int) -> list[Batch]:
    """Some batches of 16 crops."""
    loader = Batches(
        pictures, augment=augment, size_px=320, batch_size=16, seed=seed, workers=0, drop_last=False
    )
    return list(islice(loader.epoch(0), count))


def main() -> int:
    """Print a table."""
    os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider"))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    source = WiderFace()
    learn, check = split(source.pictures("train").with_faces(), 0.05)
    held_out = batches(check, PlainAugment(mirror=False), 4, 0)
    calibration = batches(learn, S3fdAugment(), 8, 1)
    detector = zoo.load("eresfd").eval()
    groups = channel_groups(detector)
    images = [batch.images for batch in calibration]
    answers = Answers.of(detector, torch.cat(images))
    print(f"Whole: {validation_loss(detector, held_out, MultiBox()):.2f}\n")
    print("| importance | " + " | ".join(f"{kind}, {m}" for kind, m in ALLOCATORS) + " |")
    print("|---" * (len(ALLOCATORS) + 1) + "|")
    with TemporaryDirectory() as folder:
        context = Context(folder=Path(folder), source=source)
        for importance in IMPORTANCES:
            cells = []
            scores = None
            for kind, multiple_of in ALLOCATORS:
                rule = {"kind": kind, "budget": "-30% macs@640x480", "multiple_of": multiple_of}
                step = Prune(
                    importance=importance,  # type: ignore[arg-type]
                    allocator=TypeAdapter(Allocator).validate_python(rule),
                    look=Look(batches=8, batch_size=16),
                )
                scores = scores or step.score(detector, groups, context)
                keep = step.choose(detector, groups, context, scores=scores).keep
                cut = remove_channels(detector, keep, groups=groups)
                losses = [validation_loss(cut, held_out, MultiBox())]
                mended = answers.taught(cut, remaining_outputs(detector, keep, groups))
                recalibrate_(cut, images)
                losses += [validation_loss(one, held_out, MultiBox()) for one in (cut, mended)]
                cells.append(" / ".join(f"{loss:.2f}" for loss in losses))
            name = " ".join(str(value) for value in importance.values())
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
