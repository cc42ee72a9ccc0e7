"""Tasks: what a search has to know of faces and of classes: pictures, a loss, a score."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from slimface.core.record import Longest
from slimface.data.batches import Batches, Loader
from slimface.data.labelled import STILL, CropFlip, LabelledBatches, LabelledSet
from slimface.data.pictures import PictureSet
from slimface.data.source import Source
from slimface.data.transforms import Augment, PlainAugment
from slimface.errors import UsageError
from slimface.evaluate.accuracy import accuracy
from slimface.evaluate.evaluator import DEFAULT_RULE, evaluate
from slimface.evaluate.truth import Truth
from slimface.evaluate.widerface import truth_of
from slimface.model.classifier import Classifier
from slimface.model.detector import RawTensors
from slimface.model.network import Network
from slimface.model.predictor import class_pipeline, pipeline
from slimface.step import Context
from slimface.train.classes import CrossEntropy, labelled
from slimface.train.criterion import Criterion, MultiBox
from slimface.train.step import split

Judges = Literal["held_out", "val"]
"""Training pictures that are held out, or the validation pictures."""

_FACE = 0.5
"""Where the parent is this sure of a face, a candidate should have its box too."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How pictures become batches."""

    augment: Augment
    size_px: int
    batch_size: int
    seed: int = 0
    drop_last: bool = True


class Task(Protocol):
    """What a search asks of its pictures."""

    learn: Any
    """Training pictures that are not held out: with a length, ``subset`` and ``fingerprint``."""

    check: Any
    """Those that are."""

    score_name: Literal["average precision", "accuracy"]

    @property
    def criterion(self) -> Criterion:
        """What the task trains with, if nothing else is asked for."""
        ...

    def loader(self, pictures: Any, cut: Cut) -> Loader[Any]:
        """Return batches of some of the pictures."""
        ...

    def logits(self, raw: Any) -> Tensor:
        """Return what has to be numbers in a network's answers."""
        ...

    def distance(self, ours: Any, theirs: Any) -> Tensor:
        """Return how far a candidate's answers are from the whole network's."""
        ...

    def score(self, network: Any, on: Judges, device: str, longest_px: int | None) -> float:
        """Return what a candidate is worth, between 0 and 1."""
        ...


def task_of(network: Network, context: Context, share: float) -> Task:
    """Return the task of a network, on the pictures of the context.

    Args:
        network: Its class decides.
        context: Has the pictures.
        share: Of the training pictures, held out.

    Raises:
        UsageError: There are no pictures, too few, or those of another task.
    """
    if context.source is None:
        raise UsageError("A search needs pictures.\nName them with --data DIR.")
    if isinstance(network, Classifier):
        parts = split(labelled(context, network, "train"), share)
        _check_count(*parts, "pictures", share)
        return ClassTask(*parts, network, context)
    learn, check = split(context.source.pictures("train").with_faces(), share)
    _check_count(learn, check, "pictures with faces", share)
    return FaceTask(learn, check, context.source)


def _check_count(learn: Any, check: Any, what: str, share: float) -> None:
    if not len(learn) or not len(check):
        raise UsageError(
            f"{len(learn) + len(check)} {what} are too few to hold {share:.0%} of them out.\n"
            "Bring more pictures."
        )


@dataclass(slots=True, eq=False)
class FaceTask:
    """The search for detectors: average precision, by the official rules on WIDER FACE."""

    learn: PictureSet
    check: PictureSet
    source: Source
    score_name: Literal["average precision", "accuracy"] = "average precision"

    @property
    def criterion(self) -> Criterion:
        return MultiBox()

    def loader(self, pictures: PictureSet, cut: Cut) -> Loader[Any]:
        return Batches(
            pictures,
            augment=cut.augment,
            size_px=cut.size_px,
            batch_size=cut.batch_size,
            seed=cut.seed,
            workers=0,
            drop_last=cut.drop_last,
        )

    def logits(self, raw: RawTensors) -> Tensor:
        return raw.logits

    def distance(self, ours: RawTensors, theirs: RawTensors) -> Tensor:
        """For each face that the whole detector sees."""
        sure = theirs.logits.sigmoid()
        faces = sure > _FACE
        count = faces.sum().clamp(min=1)
        scores = (ours.logits.sigmoid() - sure).square().sum()
        apart = functional.smooth_l1_loss
        boxes = apart(ours.offsets[faces], theirs.offsets[faces], reduction="sum")
        return (scores + boxes) / count

    def score(self, network: Any, on: Judges, device: str, longest_px: int | None) -> float:
        """Return the mean average precision over the subsets."""
        if on == "val":
            pictures = self.source.pictures("val")
            truth = truth_of(pictures, self.source.folder())
        else:
            pictures = self.check
            truth = Truth.of(pictures)
        evaluation = evaluate(
            pipeline(network, device=device),
            pictures,
            truth,
            rule=DEFAULT_RULE if longest_px is None else Longest(longest_px=longest_px),
            resamples=0,
        )
        found = [subset.average_precision or 0.0 for subset in evaluation.subsets]
        return sum(found) / len(found)


@dataclass(slots=True, eq=False)
class ClassTask:
    """The search for classifiers: the share that is named right. The test pictures stay unseen."""

    learn: LabelledSet
    check: LabelledSet
    classifier: Classifier
    context: Context
    score_name: Literal["average precision", "accuracy"] = "accuracy"

    @property
    def criterion(self) -> Criterion:
        return CrossEntropy()

    def loader(self, pictures: LabelledSet, cut: Cut) -> Loader[Any]:
        """Samples have the classifier's size; any augmentation but the plain one moves them."""
        return LabelledBatches(
            pictures,
            augment=STILL if isinstance(cut.augment, PlainAugment) else CropFlip(),
            rule=self.classifier.spec.preprocess,
            batch_size=cut.batch_size,
            seed=cut.seed,
            workers=0,
            drop_last=cut.drop_last,
        )

    def logits(self, raw: Tensor) -> Tensor:
        return raw

    def distance(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Of the probabilities, for each picture."""
        apart: Tensor = torch.softmax(ours, 1) - torch.softmax(theirs, 1)
        return apart.square().sum(1).mean()

    def score(self, network: Any, on: Judges, device: str, longest_px: int | None) -> float:
        """Return the accuracy; pictures have the size of the classifier's spec."""
        pictures = self.check
        if on == "val":
            pictures = labelled(self.context, self.classifier, "val")
        return accuracy(class_pipeline(network, device=device), pictures).top1
