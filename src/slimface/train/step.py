"""Train: the step that learns, from scratch or onwards."""

import copy
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field

from slimface.core.value import Value
from slimface.data.batches import Batches
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import UsageError
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.detector import Detector
from slimface.step import Context
from slimface.train.criterion import MultiBox
from slimface.train.loop import Epoch, epochs, validation_loss
from slimface.train.schedule import Schedule

log = logging.getLogger(__name__)

BeforeEpoch = Callable[[Detector, int], None]


class Train(Value):
    """Train a detector on crops of annotated pictures.

    Some of the training pictures are held out, and the loss on them, without augmentation, tells
    the best epoch from the last. Nothing of the validation split is looked at.
    """

    kind: Literal["train"] = "train"
    schedule: Schedule
    criterion: MultiBox = MultiBox()
    augment: Augment = S3fdAugment()
    size_px: int = Field(default=640, ge=64)
    """Side of the square crops."""

    holdout: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the training pictures kept back to choose the best epoch."""

    keep: Literal["best", "last"] = "last"
    """Which epoch's model goes on to the next step; both are saved."""

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector; ``last`` and ``best`` stay in the context's folder.

        Raises:
            UsageError: There are no pictures with faces to learn from.
        """
        return self.learn(detector, context)

    def learn(
        self, detector: Detector, context: Context, *, before_epoch: BeforeEpoch | None = None
    ) -> Detector:
        """As calling the step, with something to do to the detector before each epoch.

        Args:
            detector: Stays as it was; a copy learns.
            context: Where the step works.
            before_epoch: Called with the detector in training and the number of the epoch, from 0.
                It must do the same each time: a resumed training calls it again.
        """
        if context.source is None:
            raise UsageError("Training needs pictures.\nName them with --data DIR.")
        torch.manual_seed(context.seed)
        learn, check = split(context.source.pictures("train").with_faces(), self.holdout)
        if len(learn) < self.schedule.batch_size:
            raise UsageError(
                f"{len(learn)} pictures with faces are fewer than one batch of "
                f"{self.schedule.batch_size}.\nLower the batch size or bring more pictures."
            )
        batches = Batches(
            learn,
            augment=self.augment,
            size_px=self.size_px,
            batch_size=self.schedule.batch_size,
            seed=context.seed,
            workers=context.workers,
        )
        detector = _trainable_copy(detector, context.device)
        state = context.folder / "training.state"
        best = _best_so_far(context)
        watched = _Watched(batches, context, detector, before_epoch)
        with _Events(context) as events, _room_for(context.workers):
            for epoch in epochs(detector, watched, self.criterion, self.schedule, state=state):
                held_out = self._held_out_loss(epoch.model, check)
                self._record(epoch, held_out, context, events)
                metrics = {
                    "kind": "epoch",
                    "epoch": epoch.index + 1,
                    "loss": epoch.loss,
                    "held_out_loss": held_out,
                }
                save(epoch.model, context.folder / "last.safetensors", metrics=[metrics])
                if best is None or held_out < best:
                    best = held_out
                    save(epoch.model, context.folder / "best.safetensors", metrics=[metrics])
        return load_checkpoint(context.folder / f"{self.keep}.safetensors").detector

    def _held_out_loss(self, detector: Detector, pictures: PictureSet) -> float:
        if not len(pictures):
            return 0.0
        batches = Batches(
            pictures,
            augment=PlainAugment(mirror=False),
            size_px=self.size_px,
            batch_size=self.schedule.batch_size,
            seed=0,
            workers=0,
            drop_last=False,
        )
        return validation_loss(detector, batches.epoch(0), self.criterion)

    def _record(self, epoch: Epoch, held_out: float, context: Context, events: "_Events") -> None:
        figures = {
            "loss": epoch.loss,
            **{f"loss_{name}": value for name, value in epoch.parts.items()},
            "held_out_loss": held_out,
            "learning_rate": epoch.learning_rate,
        }
        events.add(epoch.index + 1, figures)
        context.record(
            "epoch",
            {
                "epoch": epoch.index + 1,
                "epochs": self.schedule.epochs,
                "parts": epoch.parts,
                "pictures": epoch.pictures,
                "seconds": epoch.seconds,
                **{k: figures[k] for k in ("loss", "held_out_loss", "learning_rate")},
            },
        )
        log.info(
            "epoch %d/%d: loss %.3f, held out %.3f, %.1f pictures/s",
            epoch.index + 1,
            self.schedule.epochs,
            epoch.loss,
            held_out,
            epoch.pictures / max(epoch.seconds, 1e-9),
        )


def split(pictures: PictureSet, holdout: float) -> tuple[PictureSet, PictureSet]:
    """Divide pictures by a hash of their names: the same picture always falls on the same side."""

    def held_out(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < holdout * 2**32

    aside = [held_out(picture.name) for picture in pictures]
    return (
        pictures.subset([i for i, out in enumerate(aside) if not out]),
        pictures.subset([i for i, out in enumerate(aside) if out]),
    )


@contextmanager
def _room_for(workers: int) -> Iterator[None]:
    """Leave a core to each process that prepares pictures.

    Threads of OpenMP wait for each other by spinning. On 2 cores with one worker, EResFD learns
    from 51 crops of 320 pixels a second with one thread and from 24 to 35 with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 1) - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trainable_copy(detector: Detector, device: str) -> Detector:
    return copy.deepcopy(detector).to(device).requires_grad_(True)


def _best_so_far(context: Context) -> float | None:
    path = context.folder / "best.safetensors"
    if not path.exists() or not (context.folder / "training.state").exists():
        return None
    return float(load_checkpoint(path).metrics[0]["held_out_loss"])


class _Watched:
    """Batches under a progress bar."""

    def __init__(
        self,
        batches: Batches,
        context: Context,
        detector: Detector,
        before_epoch: BeforeEpoch | None,
    ) -> None:
        self.batches = batches
        self.context = context
        self.detector = detector
        self.before_epoch = before_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, index: int, *, skip: int = 0):  # type: ignore[no-untyped-def]
        # In the middle of an epoch the saved state has what was done before it.
        if self.before_epoch is not None and not skip:
            self.before_epoch(self.detector, index)
        return self.context.track(
            self.batches.epoch(index, skip=skip), f"epoch {index + 1}", total=len(self) - skip
        )


class _Events:
    """TensorBoard event files, where tensorboard is installed."""

    def __init__(self, context: Context) -> None:
        self.folder = context.folder / "events"

    def __enter__(self) -> "_Events":
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add(self, epoch: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
