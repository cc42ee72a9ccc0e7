"""Train: the step that learns, from scratch or onwards."""

import hashlib
from typing import Literal

import torch
from pydantic import Field

from slimface.core.value import Value
from slimface.data.batches import Batches
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import UsageError
from slimface.model.detector import Detector
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.course import BeforeEpoch, follow
from slimface.train.criteria import AnyCriterion
from slimface.train.criterion import MultiBox
from slimface.train.loop import validation_loss
from slimface.train.schedule import Schedule


class Train(Value):
    """Train a detector on crops of annotated pictures.

    Some of the training pictures are held out, and the loss on them, without augmentation, tells
    the best epoch from the last. Nothing of the validation split is looked at.
    """

    kind: Literal["train"] = "train"
    schedule: Schedule
    criterion: AnyCriterion = MultiBox()
    """What is made small; a teacher or a penalty is a criterion around another one."""

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
        return follow(
            detector,
            batches,
            self.criterion,
            self.schedule,
            context,
            held_out=lambda model: self._held_out_loss(model, check),
            keep=self.keep,
            before_epoch=before_epoch,
        )

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
        return validation_loss(detector, batches.epoch(0), innermost(self.criterion))


def split(pictures: PictureSet, holdout: float) -> tuple[PictureSet, PictureSet]:
    """Divide pictures by a hash of their names: the same picture always falls on the same side."""

    def held_out(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < holdout * 2**32

    aside = [held_out(picture.name) for picture in pictures]
    return (
        pictures.subset([i for i, out in enumerate(aside) if not out]),
        pictures.subset([i for i, out in enumerate(aside) if out]),
    )
