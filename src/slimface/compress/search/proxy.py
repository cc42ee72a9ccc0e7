"""Proxies: cheap signs of what a pruned detector will be worth once it has been trained.

All of them are deterministic: the same crops for every candidate, cut once, so that two candidates
differ by their channels alone.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from slimface.compress.repair.norms import recalibrate_
from slimface.compress.repair.reconstruct import Answers, Stays
from slimface.compress.search.tasks import Cut, Task, task_of
from slimface.core.value import Value
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import CheckpointError
from slimface.model.network import Network
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.criteria import AnyCriterion
from slimface.train.criterion import Criterion
from slimface.train.loop import epochs, validation_loss
from slimface.train.schedule import Schedule

log = logging.getLogger(__name__)

_PLACES = 2048
"""Of each map, at which candidates are reconstructed: enough to tell them apart."""


class Proxy(Value):
    """Re-estimate batch norms on some crops, then take the loss on others that are held out.

    A cut detector's batch norms hold statistics of inputs that it no longer has, so that its
    answers are far worse than its filters. One pass over a few crops mends that.

    Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning",
    ECCV 2020, arXiv:2007.02491, section 3.3 (adaptive batch normalisation).
    """

    kind: Literal["adaptive_norms"] = "adaptive_norms"
    calibration: int = Field(default=32, ge=0)
    """Training crops that the repair looks at; 0 leaves candidates as they are cut."""

    repair: Literal["norms", "reconstruct"] = "norms"
    """What is done to a candidate before it is judged: batch norms estimated anew, or all weights
    solved for, so that its layers answer as the whole's (see ``compress.repair``). A short training
    then starts from there."""

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

    criterion: AnyCriterion | None = None
    """The loss; that of the network's task if none is named."""

    def bench(self, detector: Network, context: Context) -> "Bench":
        """Cut the crops out and try the whole detector on them.

        Raises:
            UsageError: There are too few pictures with faces.
            CheckpointError: The detector's answers are not numbers.
        """
        task = task_of(detector, context, self.share)
        criterion = task.criterion if self.criterion is None else innermost(self.criterion)
        bench = Bench(
            self,
            task,
            criterion,
            tuple(self._crops(task, task.learn, self.calibration, context, "calibration")),
            tuple(self._crops(task, task.check, self.held_out, context, "held-out")),
            context.device,
        )
        return bench.beside(detector)

    def _crops(
        self, task: Task, pictures: Any, count: int, context: Context, what: str
    ) -> list[Any]:
        size = min(self.batch_size, max(count, 1))
        batches = task.loader(pictures, Cut(self.augment, self.size_px, size, drop_last=False))
        wanted = math.ceil(count / self.batch_size)
        shown = context.track(
            islice(batches.epoch(0), wanted), f"cutting {what} crops", total=wanted
        )
        return list(shown)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Crops, ready to try candidates on."""

    proxy: Proxy
    task: Task
    criterion: Criterion
    calibration: tuple[Any, ...]
    """Batches that norms are estimated on."""

    held_out: tuple[Any, ...]
    """Batches that the loss is taken on."""

    device: str
    expected: tuple[Any, ...] = ()
    """What the whole network says to each held-out batch."""

    parent_loss: float = math.nan
    """Of the whole detector, with its own batch norms."""

    answers: Answers | None = None
    """What the whole detector's layers say to the calibration crops, for candidates that are
    reconstructed."""

    def beside(self, detector: Network) -> "Bench":
        """Return a bench that knows what the whole detector says.

        Raises:
            CheckpointError: It says nothing that is a number.
        """
        expected = tuple(_answers(detector.to(self.device), self.held_out))
        if not all(bool(torch.isfinite(self.task.logits(raw)).all()) for raw in expected):
            raise CheckpointError(
                f"{detector.spec.name} answers pictures with infinite or undefined numbers.\n"
                "Its weights are damaged; train or load it again."
            )
        bench = replace(self, expected=expected)
        if self.calibration and self.proxy.repair == "reconstruct":
            images = torch.cat([batch.images for batch in self.calibration])
            bench = replace(bench, answers=Answers.of(detector, images, places=_PLACES))
        return replace(bench, parent_loss=bench.loss(detector))

    def judge(self, detector: Network, stays: Stays) -> float:
        """Return the held-out loss of a candidate after the repair; arguments as for that."""
        return self.loss(self.mended(detector, stays))

    def mended(self, detector: Network, stays: Stays) -> Network:
        """Return a candidate after the repair; ``detector`` itself may be changed.

        Args:
            detector: As it was cut.
            stays: Those outputs of each layer that were not removed.
        """
        detector.to(self.device)
        if self.answers is not None:
            return self.answers.taught(detector, stays)
        recalibrate_(detector, (batch.images for batch in self.calibration))
        return detector

    def loss(self, detector: Network) -> float:
        """Return the held-out loss of a detector as it is; not finite if its answers are not."""
        if self.proxy.against == "truth":
            return validation_loss(detector, self.held_out, self.criterion)
        found = _answers(detector, self.held_out)
        pairs = zip(found, self.expected, strict=True)
        return float(torch.stack([self.task.distance(*pair) for pair in pairs]).mean())


class ShortTraining(Value):
    """A training so short that every promising candidate can have it, all on the same crops."""

    pictures: int = Field(default=480, gt=0)
    """Spread evenly over those that are not held out."""

    size_px: int = Field(default=320, ge=64)
    schedule: Schedule = Schedule(epochs=1, batch_size=16, learning_rate=1e-3)
    augment: Augment = S3fdAugment()

    def crops(self, bench: Bench, context: Context) -> "Repeated":
        """Cut the crops out, once for all candidates."""
        every = bench.task.learn
        count = min(self.pictures, len(every))
        chosen = every.subset([i * len(every) // count for i in range(count)])
        size = min(self.schedule.batch_size, count)
        cut = Cut(self.augment, self.size_px, size, seed=context.seed)
        batches = bench.task.loader(chosen, cut)
        shown = context.track(batches.epoch(0), "cutting training crops", total=len(batches))
        return Repeated(list(shown))

    def __call__(self, detector: Network, crops: "Repeated", bench: Bench) -> None:
        """Train ``detector`` in place."""
        detector.to(bench.device).requires_grad_(True)
        torch.manual_seed(0)
        for _ in epochs(detector, crops, bench.criterion, self.schedule):
            pass
        detector.eval()


@dataclass(frozen=True, slots=True, eq=False)
class Repeated:
    """The same batches in every epoch."""

    batches: Sequence[Any]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.batches)

    def epoch(self, index: int, *, skip: int = 0) -> Sequence[Any]:
        """Return the batches, without the first ``skip``."""
        return self.batches[skip:]


@torch.no_grad()
def _answers(detector: Network, batches: Sequence[Any]) -> Iterator[Any]:
    detector.eval()
    for batch in batches:
        yield detector(_prepared(detector, batch))


def _prepared(detector: Network, batch: Any) -> Tensor:
    device = next(detector.parameters()).device
    images = detector.prepare(batch.images.to(device))
    return images.contiguous(memory_format=torch.channels_last)
