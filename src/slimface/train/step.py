"""Train: the step that learns, from scratch or onwards."""

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field

from slimface.core.value import Value
from slimface.data.batches import Batches
from slimface.data.labelled import STILL, CropFlip, LabelledBatches, LabelledSet
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import UsageError
from slimface.model.classifier import Classifier
from slimface.model.network import Network
from slimface.order import FLOAT, LEARNT, NORMS, ZEROED, Terms
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.classes import CrossEntropy, labelled
from slimface.train.course import BeforeEpoch, follow
from slimface.train.criteria import AnyCriterion
from slimface.train.criterion import MultiBox
from slimface.train.loop import Epochs, validation_loss
from slimface.train.schedule import Schedule

N = TypeVar("N", bound=Network)
S = TypeVar("S", PictureSet, LabelledSet)


class Train(Value):
    """Train a detector on crops of annotated pictures, or a classifier on pictures with classes.

    Some of the training pictures are held out, and the loss on them, without augmentation, tells
    the best epoch from the last. Nothing of the validation split is looked at.
    """

    kind: Literal["train"] = "train"
    schedule: Schedule
    criterion: AnyCriterion = MultiBox()
    """What is made small; a teacher or a penalty is a criterion around another one."""

    augment: Annotated[Augment | CropFlip, Field(discriminator="kind")] = S3fdAugment()
    """``crop_flip`` is for classifiers, the others move faces with their pixels."""

    size_px: int = Field(default=640, ge=64)
    """Side of the square crops for detectors; classifiers have the size of their spec."""

    holdout: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the training pictures kept back to choose the best epoch."""

    keep: Literal["best", "last"] = "last"
    """Which epoch's model goes on to the next step; both are saved."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        # A filter that is zero goes on learning, and is not zero afterwards.
        return Terms(
            needs=frozenset({FLOAT, NORMS}),
            leaves=frozenset({LEARNT}),
            takes=frozenset({ZEROED}),
            tasks=frozenset({"detection", "classification"}),
        )

    def __call__(self, detector: N, context: Context) -> N:
        """Return the trained network; ``last`` and ``best`` stay in the context's folder.

        Raises:
            UsageError: There are no pictures to learn from, or the criterion or the augmentation is
                for another task.
        """
        return self.learn(detector, context)

    def learn(self, detector: N, context: Context, *, before_epoch: BeforeEpoch | None = None) -> N:
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
        of_task = self._of_classes if isinstance(detector, Classifier) else self._of_faces
        batches, check = of_task(detector, context)

        def held_out(model: Any) -> float:
            if check is None:
                return 0.0
            return validation_loss(model, check.epoch(0), innermost(self.criterion))

        return follow(
            detector,
            batches,
            self.criterion,
            self.schedule,
            context,
            held_out=held_out,
            keep=self.keep,
            before_epoch=before_epoch,
        )

    def _of_faces(self, detector: Any, context: Context) -> tuple[Epochs, Epochs | None]:
        """Batches to learn from, and those that are held out."""
        assert context.source is not None
        augment = self.augment
        if isinstance(augment, CropFlip) or isinstance(innermost(self.criterion), CrossEntropy):
            raise _mismatch(detector, "cross_entropy and crop_flip", "a classifier")
        learn, check = split(context.source.pictures("train").with_faces(), self.holdout)
        self._check_count(learn, "pictures with faces")
        batches = Batches(
            learn,
            augment=augment,
            size_px=self.size_px,
            batch_size=self.schedule.batch_size,
            seed=context.seed,
            workers=context.workers,
        )
        if not len(check):
            return batches, None
        return batches, Batches(
            check,
            augment=PlainAugment(mirror=False),
            size_px=self.size_px,
            batch_size=self.schedule.batch_size,
            workers=0,
            drop_last=False,
        )

    def _of_classes(self, classifier: Any, context: Context) -> tuple[Epochs, Epochs | None]:
        augment = self.augment
        criterion = innermost(self.criterion)
        if not isinstance(augment, CropFlip) or not isinstance(criterion, CrossEntropy):
            kinds = f"{getattr(criterion, 'kind', 'this criterion')} and {augment.kind}"
            raise _mismatch(classifier, kinds, "a detector")
        learn, check = split(labelled(context, classifier, "train"), self.holdout)
        self._check_count(learn, "pictures")
        rule, batch_size = classifier.spec.preprocess, self.schedule.batch_size
        batches = LabelledBatches(
            learn,
            augment=augment,
            rule=rule,
            batch_size=batch_size,
            seed=context.seed,
            workers=context.workers,
        )
        if not len(check):
            return batches, None
        return batches, LabelledBatches(
            check, augment=STILL, rule=rule, batch_size=batch_size, workers=0, drop_last=False
        )

    def _check_count(self, learn: PictureSet | LabelledSet, what: str) -> None:
        if len(learn) < self.schedule.batch_size:
            raise UsageError(
                f"{len(learn)} {what} are fewer than one batch of {self.schedule.batch_size}.\n"
                "Lower the batch size or bring more pictures."
            )


def _mismatch(network: Network, kinds: str, task: str) -> UsageError:
    wanted = (
        "criterion: {kind: multibox} and augment: {kind: s3fd}"
        if task == "a classifier"
        else "criterion: {kind: cross_entropy} and augment: {kind: crop_flip}"
    )
    return UsageError(
        f"Of {kinds}, one is for {task}, and {network.spec.name} does {network.spec.task}.\n"
        f"Write {wanted}, or their like."
    )


def split(pictures: S, holdout: float) -> tuple[S, S]:
    """Divide pictures by a hash of their names: the same picture always falls on the same side."""

    def held_out(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < holdout * 2**32

    aside = [held_out(picture.name) for picture in pictures]
    return (
        pictures.subset([i for i, out in enumerate(aside) if not out]),
        pictures.subset([i for i, out in enumerate(aside) if out]),
    )
