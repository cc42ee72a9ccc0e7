"""Start: the model that a recipe begins with, and whose weights it has."""

from pathlib import Path
from typing import Any

from slimface.core.spec import ModelSpec
from slimface.errors import UsageError
from slimface.loading import CHECKPOINT, COMPOSED
from slimface.model import zoo
from slimface.model.backbones.backbone import Backbone
from slimface.model.backbones.pretrained import load_pretrained_
from slimface.model.build import build
from slimface.model.cascade import open_composed
from slimface.model.checkpoint import Provenance, load_checkpoint
from slimface.model.detector import Detector
from slimface.recipe.classes import classifier_spec, is_classifier, start_classifier
from slimface.recipe.recipe import Recipe

PUBLISHED_BACKBONE = "published"
"""``backbone`` of a recipe whose backbone gets the weights that timm or torchvision publish."""


def start(recipe: Recipe) -> tuple[Any, Provenance]:
    """Return the model a recipe starts from, and whose weights it has."""
    if recipe.backbone is not None and recipe.pretrained:
        raise UsageError(
            "ImageNet weights of the backbone were given to a model that has trained weights.\n"
            "Set pretrained to false, or leave backbone out."
        )
    path = Path(recipe.model)
    if COMPOSED.search(recipe.model):
        return open_composed(recipe.model)
    if path.suffix == CHECKPOINT:
        checkpoint = load_checkpoint(path)
        return checkpoint.network, checkpoint.provenance
    if is_classifier(recipe.model):
        return start_classifier(
            recipe.model, recipe.source, pretrained=recipe.pretrained, seed=recipe.seed
        )
    entry = zoo.entry(recipe.model)
    if recipe.pretrained:
        return zoo.load(recipe.model), entry.provenance
    detector = build(entry.spec, seed=recipe.seed)
    if recipe.backbone is not None:
        _give_backbone_(detector, recipe.backbone)
    return detector, Provenance(seed=recipe.seed)


def spec_of(model: str) -> ModelSpec:
    """Return the spec of a name of the zoo or of a checkpoint.

    The classes of a new classifier are only known once there are pictures; these are not they.
    """
    if is_classifier(model):
        return classifier_spec(model, ("one", "other"))
    if COMPOSED.search(model):
        return open_composed(model)[0].spec
    if Path(model).suffix == CHECKPOINT:
        return load_checkpoint(model).spec
    return zoo.entry(model).spec


def _give_backbone_(detector: Detector, source: str) -> None:
    body = getattr(detector, "body", None)
    if not isinstance(body, Backbone):
        raise UsageError(
            f"{detector.spec.name} has no backbone of its own that ImageNet weights are made for.\n"
            "Leave the weights of the backbone out; RetinaFace has backbones."
        )
    load_pretrained_(body, None if source == PUBLISHED_BACKBONE else source)
