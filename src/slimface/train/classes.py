"""Classes: what a classifier's training makes small, and the pictures it learns from."""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from slimface.core.value import Value
from slimface.data.folders import ClassSource
from slimface.data.labelled import LabelledBatch, LabelledSet, LabelledSplit
from slimface.errors import UsageError
from slimface.model.classifier import Classifier
from slimface.step import Context
from slimface.train.criterion import Loss


class CrossEntropy(Value):
    """Cross entropy of the classes."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the certainty that is spread over all classes.

    Source: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, arXiv:1512.00567,
    section 7.
    """

    def __call__(self, detector: Classifier, raw: Tensor, batch: LabelledBatch) -> Loss:
        """Return the loss of ``raw``, the classifier's logits for ``batch``."""
        labels = batch.labels.to(raw.device)
        loss = F.cross_entropy(raw, labels, label_smoothing=self.smoothing)
        return Loss(loss, {"class": loss.detach()})


def labelled(context: Context, classifier: Classifier, split: LabelledSplit) -> LabelledSet:
    """Return a split of the context's pictures, for this classifier.

    Raises:
        UsageError: There are none, they show faces, or they have other classes.
    """
    source = context.source
    if not isinstance(source, ClassSource):
        what = "none are" if source is None else f"{source.kind} has faces"
        raise UsageError(
            f"{classifier.spec.name} is a classifier and needs pictures with classes; {what} given."
            "\nName them with --data: pets, drawn-breeds, or folders:DIR, a folder for each class."
        )
    pictures = source.labelled(split)
    check_classes(pictures, classifier)
    return pictures


def check_classes(pictures: LabelledSet, classifier: Classifier) -> None:
    """Refuse pictures of other classes than the classifier's.

    Raises:
        UsageError: They have other classes, or another order of them.
    """
    known, given = classifier.spec.classes, pictures.classes
    if known == given:
        return
    odd = sorted(set(known) ^ set(given)) or ["the order differs"]
    raise UsageError(
        f"{pictures.name} has {len(given)} classes, {classifier.spec.name} knows {len(known)}, and "
        f"they are not the same ({', '.join(odd[:5])}).\n"
        "Train a classifier for these pictures, or name the pictures this one was trained on."
    )
