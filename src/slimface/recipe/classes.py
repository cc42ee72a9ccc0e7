"""Classes: how a recipe for a classifier starts."""

import re

from slimface.core.spec import ClassifierSpec
from slimface.data.folders import ClassSource
from slimface.data.source import Source
from slimface.errors import UsageError
from slimface.model.build import build
from slimface.model.checkpoint import Provenance
from slimface.model.classifier import FAMILY, IMAGENET, Classifier, classifier, load_pretrained_

_NAME = re.compile(rf"{FAMILY}:(?P<model>[^@]+?)(?:@(?P<size>[1-9]\d{{0,3}}))?")


def is_classifier(model: str) -> bool:
    """Whether a name is one of a classifier: ``classifier:resnet18``."""
    return model.startswith(f"{FAMILY}:")


def classifier_spec(model: str, classes: tuple[str, ...]) -> ClassifierSpec:
    """Return the spec of ``classifier:MODEL`` or ``classifier:MODEL@SIZE``.

    Args:
        model: MODEL is a name of timm's or ``torchvision/`` and one of torchvision's; SIZE is the
            side of the input in pixels, 224 if not given.
        classes: Their names.

    Raises:
        UsageError: It is not written like that.
    """
    found = _NAME.fullmatch(model)
    if found is None:
        raise UsageError(
            f"'{model}' is not the name of a classifier.\n"
            f"Write {FAMILY}:resnet18, {FAMILY}:resnet18@96 or {FAMILY}:torchvision/resnet18."
        )
    side = int(found["size"] or IMAGENET.height_px)
    rule = IMAGENET.model_copy(update={"height_px": side, "width_px": side})
    return classifier(found["model"], classes, preprocess=rule)


def start_classifier(
    model: str, source: Source, *, pretrained: bool, seed: int
) -> tuple[Classifier, Provenance]:
    """Return a new classifier for the classes of a source.

    Args:
        model: As for ``classifier_spec``.
        source: The pictures.
        pretrained: With the published ImageNet weights, all but the last layer.
        seed: Draws the other weights.

    Raises:
        UsageError: The source has no classes.
        MissingError: The published weights are not to be had.
    """
    if not isinstance(source, ClassSource):
        raise UsageError(
            f"{model} needs pictures with classes, and {source.kind} has faces.\n"
            "Name them with --data: pets, drawn-breeds, or folders:DIR, a folder for each class."
        )
    made = build(classifier_spec(model, source.labelled("train").classes), seed=seed)
    assert isinstance(made, Classifier)
    if not pretrained:
        return made, Provenance(seed=seed)
    load_pretrained_(made)
    return made, Provenance(seed=seed, origin=f"ImageNet weights of {model}")
