"""TimmBackbone: any convolutional network of timm that has maps of strides 8, 16 and 32."""

import difflib
from typing import Any, cast

import torch
from torch import Tensor

from slimface.errors import MissingError, RecipeError
from slimface.model.backbones.backbone import PUBLISHED, STRIDES, Backbone

_SIDE = 64


class TimmBackbone(Backbone):
    """A network of timm without what comes after its map of stride 32.

    Keys are timm's for ``create_model(name, features_only=True)``.
    """

    is_whole = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        reductions = _create(name).feature_info.reduction()
        if any(stride not in reductions for stride in STRIDES):
            raise RecipeError(
                f"The backbone {name} gives maps of the strides "
                f"{', '.join(map(str, reductions))}; RetinaFace needs 8, 16 and 32.\n"
                "Choose a convolutional network, such as mobilenetv4_conv_small."
            )
        # The deepest map of a stride knows most.
        last = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES]
        self.network = _create(name, out_indices=tuple(last))
        first, second, third = self.network.feature_info.channels()
        self.channels = (first, second, third)
        _check_maps(self, name)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor, Tensor], tuple(self.network(images)))

    def published_name(self, key: str) -> str:
        return key.removeprefix("network.")

    def published_state(self) -> dict[str, Tensor]:
        indices = tuple(self.network.feature_info.out_indices)
        try:
            network = _create(self.name, out_indices=indices, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise MissingError(
                f"The ImageNet weights of {self.name} are not to be had from timm ({error}).\n"
                "Fetch them by other means and give their file, or train from random weights."
            ) from None
        return dict(network.state_dict())


def _create(name: str, **options: Any) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingError(
            f"The backbone {name} needs the package timm, which is not installed.\n"
            "Install it with: pip install 'slimface[timm]'"
        ) from error
    if not timm.is_model(name):
        known = [*PUBLISHED, *timm.list_models()]
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "timm.list_models() lists timm's."
        raise RecipeError(f"There is no backbone called {name!r}.\n{hint}")
    try:
        return timm.create_model(name, features_only=True, **{"pretrained": False, **options})
    except (AssertionError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise RecipeError(
            f"timm cannot take {name} apart into its maps ({error}).\n"
            "Choose a convolutional network, such as mobilenetv4_conv_small."
        ) from None


def _check_maps(backbone: TimmBackbone, name: str) -> None:
    """Refuse what is not a pyramid of maps: transformers that want one size, channels last."""
    state = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, _SIDE, 2 * _SIDE))
        found = [tuple(level.shape[1:]) for level in maps]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise RecipeError(
            f"The backbone {name} cannot be fed a picture of {2 * _SIDE}x{_SIDE} ({error}).\n"
            "Choose one that takes any size, such as mobilenetv4_conv_small."
        ) from None
    finally:
        backbone.train(state)
    needed = [
        (channels, _SIDE // stride, 2 * _SIDE // stride)
        for channels, stride in zip(backbone.channels, STRIDES, strict=True)
    ]
    if found != needed:
        raise RecipeError(
            f"The backbone {name} gives maps of {found} for a picture of {2 * _SIDE}x{_SIDE}; "
            f"{needed} (channels, height, width) are needed.\n"
            "Choose a convolutional network, such as mobilenetv4_conv_small."
        )
