"""Backbone: what a pyramid stands on, and the names backbones go by."""

from importlib import import_module
from typing import cast

from torch import Tensor, nn

from slimface.errors import MissingError

PUBLISHED = {
    "mobilenet025": "slimface.model.backbones.mobilenet025:MobileNet025",
    "resnet50": "slimface.model.backbones.resnet50:ResNet50",
    "ghostnet": "slimface.model.backbones.ghostnet:GhostNet",
    "mobilenetv3": "slimface.model.backbones.mobilenetv3:MobileNetV3",
}
"""Backbones of published detectors -> module and class. Any other name is one of timm's."""

STRIDES = (8, 16, 32)


class Backbone(nn.Module):
    """Pictures in, one map for each of ``STRIDES`` out."""

    channels: tuple[int, int, int]
    """Channels of the maps."""

    classifier_names: tuple[str, ...] = ()
    """Modules of the ImageNet classifier that a detector has no use for."""

    is_whole: bool = True
    """Whether the classifier has no other tensors besides those."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return three maps of ``images``, finest first, ``ceil(size / stride)`` large."""
        raise NotImplementedError

    def published_name(self, key: str) -> str:
        """Return how the classifier calls a tensor of this state dict."""
        return key

    def published_state(self) -> dict[str, Tensor]:
        """Return the tensors of the published classifier, downloaded where need be.

        Raises:
            MissingError: Nobody publishes them, or they are out of reach.
        """
        raise MissingError(
            f"No ImageNet weights of {type(self).__name__} can be downloaded.\n"
            "Give a file that holds them, or train from random weights."
        )


def build_backbone(name: str) -> Backbone:
    """Return a backbone with random weights.

    Args:
        name: One of ``PUBLISHED``, or a name of timm's (``mobilenetv4_conv_small``).

    Raises:
        RecipeError: timm has no such model, or it gives no maps of the three strides.
        MissingError: The package it comes from is not installed.
    """
    if name not in PUBLISHED:
        from slimface.model.backbones.timm import TimmBackbone

        return TimmBackbone(name)
    module, _, kind = PUBLISHED[name].partition(":")
    return cast(Backbone, getattr(import_module(module), kind)())
