"""Proxies: cheap signs of what a pruned detector will be worth once it has been trained.

All of them are deterministic: the same crops for every candidate, cut once, so that two candidates
differ by their channels alone.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from slimface.compress.repair.norms import recalibrate_
from slimface.core.value import Value
from slimface.data.batches import Batch, Batches
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import CheckpointError, UsageError
from slimface.model.detector import Detector, RawTensors
from slimface.step import Context
from slimface.train.criterion import MultiBox
from slimface.train.loop import epochs, validation_loss
from slimface.train.schedule import Schedule
from slimface.train.step import split

log = logging.getLogger(__name__)

_FACE = 0.5
"""Where the parent is this sure of a face, a candidate should have its box too."""


class Proxy(Value):
    """Re-estimate batch norms on some crops, then take the loss on others that are held out.

    A cut detector's batch norms hold statistics of inputs that it no longer has, so that its
    answers are far worse than its filters. One pass over a few crops mends that.

    Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning",
    ECCV 2020, arXiv:2007.02491, section 3.3 (adaptive batch normalisation).
    """

    kind: Literal["adaptive_norms"] = "adaptive_norms"
    calibration: int = Field(default=32, ge=0)
    """Training crops that the batch norms are estimated on; 0 leaves them as they are."""

    held_out: int = Field(default=64, gt=0)
    """Crops that the loss is taken on."""

    size_px: int = Field(default=320, ge=64)
    batch_size: int = Field(default=16, gt=0)
    augment: Augment = PlainAugment(mirror=False)
    """How crops are cut out, once for all candidates."""

    share: float = Field(default=0.1, gt=0, lt=0.5)
    """Of the training pictures, held out: nothing learns from them, here or in a ``train`` step
    whose share is no larger."""

    against: Literal["truth", "parent"] = "truth"
    """Whether the loss compares with the annotations or with what the whole detector says."""

    criterion: MultiBox = MultiBox()

    def bench(self, detector: Detector, context: Context) -> "Bench":
        """Cut the crops out and try the whole detector on them.

        Raises:
            UsageError: There are too few pictures with faces.
            CheckpointError: The detector's answers are not numbers.
        """
        if context.source is None:
            raise UsageError("A search needs pictures.\nName them with --data DIR.")
        learn, check = split(context.source.pictures("train").with_faces(), self.share)
        if not len(learn) or not len(check):
            raise UsageError(
                f"{len(learn) + len(check)} pictures with faces are too few to hold "
                f"{self.share:.0%} of them out.\nBring more pictures."
            )
        bench = Bench(
            self,
            learn,
            check,
            tuple(self._crops(learn, self.calibration, context, "calibration")),
            tuple(self._crops(check, self.held_out, context, "held-out")),
            context.device,
        )
        return bench.beside(detector)

    def _crops(self, pictures: PictureSet, count: int, context: Context, what: str) -> list[Batch]:
        batches = Batches(
            pictures,
            augment=self.augment,
            size_px=self.size_px,
            batch_size=min(self.batch_size, max(count, 1)),
            seed=0,
            workers=0,
            drop_last=False,
        )
        wanted = math.ceil(count / self.batch_size)
        shown = context.track(
            islice(batches.epoch(0), wanted), f"cutting {what} crops", total=wanted
        )
        return list(shown)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Crops, ready to try candidates on."""

    proxy: Proxy
    learn: PictureSet
    """Training pictures that are not held out."""

    check: PictureSet
    """Those that are."""

    calibration: tuple[Batch, ...]
    held_out: tuple[Batch, ...]
    device: str
    expected: tuple[RawTensors, ...] = ()
    """What the whole detector says to each held-out batch."""

    parent_loss: float = math.nan
    """Of the whole detector, with its own batch norms."""

    def beside(self, detector: Detector) -> "Bench":
        """Return a bench that knows what the whole detector says.

        Raises:
            CheckpointError: It says nothing that is a number.
        """
        expected = tuple(_answers(detector.to(self.device), self.held_out))
        if not all(bool(torch.isfinite(raw.logits).all()) for raw in expected):
            raise CheckpointError(
                f"{detector.spec.name} answers pictures with infinite or undefined numbers.\n"
                "Its weights are damaged; train or load it again."
            )
        bench = replace(self, expected=expected)
        return replace(bench, parent_loss=bench.loss(detector))

    def judge(self, detector: Detector) -> float:
        """Re-estimate the batch norms of ``detector``, in place, and return its held-out loss."""
        self.mend_(detector)
        return self.loss(detector)

    def mend_(self, detector: Detector) -> None:
        """Re-estimate the batch norms of ``detector``, in place."""
        recalibrate_(detector.to(self.device), (batch.images for batch in self.calibration))

    def loss(self, detector: Detector) -> float:
        """Return the held-out loss of a detector as it is; not finite if its answers are not."""
        if self.proxy.against == "truth":
            return validation_loss(detector, self.held_out, self.proxy.criterion)
        found = _answers(detector, self.held_out)
        pairs = [_distance(ours, theirs) for ours, theirs in zip(found, self.expected, strict=True)]
        return float(torch.stack(pairs).mean())


class ShortTraining(Value):
    """A training so short that every promising candidate can have it, all on the same crops."""

    pictures: int = Field(default=480, gt=0)
    """Spread evenly over those that are not held out."""

    size_px: int = Field(default=320, ge=64)
    schedule: Schedule = Schedule(epochs=1, batch_size=16, learning_rate=1e-3)
    augment: Augment = S3fdAugment()

    def crops(self, bench: Bench, context: Context) -> "Repeated":
        """Cut the crops out, once for all candidates."""
        count = min(self.pictures, len(bench.learn))
        chosen = bench.learn.subset([i * len(bench.learn) // count for i in range(count)])
        batches = Batches(
            chosen,
            augment=self.augment,
            size_px=self.size_px,
            batch_size=min(self.schedule.batch_size, count),
            seed=context.seed,
            workers=0,
        )
        shown = context.track(batches.epoch(0), "cutting training crops", total=len(batches))
        return Repeated(list(shown))

    def __call__(self, detector: Detector, crops: "Repeated", bench: Bench) -> None:
        """Train ``detector`` in place."""
        detector.to(bench.device).requires_grad_(True)
        torch.manual_seed(0)
        for _ in epochs(detector, crops, bench.proxy.criterion, self.schedule):
            pass
        detector.eval()


@dataclass(frozen=True, slots=True, eq=False)
class Repeated:
    """The same batches in every epoch."""

    batches: Sequence[Batch]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.batches)

    def epoch(self, index: int, *, skip: int = 0) -> Sequence[Batch]:
        """Return the batches, without the first ``skip``."""
        return self.batches[skip:]


@torch.no_grad()
def _answers(detector: Detector, batches: Sequence[Batch]) -> Iterator[RawTensors]:
    detector.eval()
    for batch in batches:
        yield detector(_prepared(detector, batch))


def _prepared(detector: nn.Module, batch: Batch) -> Tensor:
    device = next(detector.parameters()).device
    images: Tensor = detector.prepare(batch.images.to(device))  # type: ignore[operator]
    return images.contiguous(memory_format=torch.channels_last)


def _distance(ours: RawTensors, theirs: RawTensors) -> Tensor:
    """How far the answers are apart, for each face that the parent sees."""
    sure = theirs.logits.sigmoid()
    faces = sure > _FACE
    count = faces.sum().clamp(min=1)
    scores = (ours.logits.sigmoid() - sure).square().sum()
    boxes = functional.smooth_l1_loss(ours.offsets[faces], theirs.offsets[faces], reduction="sum")
    return (scores + boxes) / count
