"""GhostNet, of the widths that a published RetinaFace gives it: 64, 128 and 256 channels.

Source: Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv:1911.11907,
figures 2 and 3. Rows differ from its table 1 so that the three maps are as wide as MobileNet's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimface.model.backbones.backbone import Backbone

_Row = tuple[int, int, int, bool, int]
_BLOCKS: tuple[tuple[tuple[_Row, ...], ...], ...] = (
    (
        ((3, 16, 16, False, 1),),
        ((3, 48, 24, False, 2), (3, 72, 32, False, 1)),
        ((5, 72, 32, True, 2), (5, 120, 64, True, 1)),
    ),
    (
        ((3, 240, 64, False, 2),),
        (
            (3, 200, 64, False, 1),
            (3, 184, 128, False, 1),
            (3, 184, 128, False, 1),
            (3, 480, 128, True, 1),
            (3, 672, 128, True, 1),
        ),
    ),
    (
        ((5, 672, 128, True, 2),),
        (
            (5, 960, 256, False, 1),
            (5, 960, 256, True, 1),
            (5, 960, 256, False, 1),
            (5, 960, 256, True, 1),
        ),
    ),
)
"""Kernel, expanded channels, output channels, squeeze-and-excitation, stride."""


class GhostNet(Backbone):
    """2.9 million parameters, of which most are squeeze-and-excitation."""

    channels = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU()
        self.blocks1 = _stages(16, _BLOCKS[0])
        self.blocks2 = _stages(64, _BLOCKS[1])
        self.blocks3 = _stages(128, _BLOCKS[2])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self.act1(self.bn1(self.conv_stem(images)))
        first = self.blocks1(stem)
        second = self.blocks2(first)
        return first, second, self.blocks3(second)


def _stages(width: int, block: tuple[tuple[_Row, ...], ...]) -> nn.Sequential:
    stages = []
    for rows in block:
        layers = []
        for kernel, expanded, outputs, squeeze, stride in rows:
            layers.append(_Bottleneck(width, expanded, outputs, kernel, stride, squeeze))
            width = outputs
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(*stages)


class _Ghost(nn.Module):
    """Half of the channels from a convolution, the other half each from one of those."""

    def __init__(self, inputs: int, outputs: int, *, active: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.primary_conv = _active(nn.Conv2d(inputs, half, 1, bias=False), half, active=active)
        cheap = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.cheap_operation = _active(cheap, half, active=active)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        return torch.cat([primary, self.cheap_operation(primary)], dim=1)


class _Bottleneck(nn.Module):
    def __init__(
        self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, squeeze: bool
    ) -> None:
        super().__init__()
        self.ghost1 = _Ghost(inputs, expanded, active=True)
        self.middle: list[str] = []
        if stride > 1:
            self.conv_dw = _depthwise(expanded, kernel, stride)
            self.bn_dw = nn.BatchNorm2d(expanded)
            self.middle += ["conv_dw", "bn_dw"]
        if squeeze:
            self.se = _Excitation(expanded)
            self.middle.append("se")
        self.ghost2 = _Ghost(expanded, outputs, active=False)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _depthwise(inputs, kernel, stride),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        for name in self.middle:
            y = self.get_submodule(name)(y)
        return self.ghost2(y) + self.shortcut(x)  # type: ignore[no-any-return]


class _Excitation(nn.Module):
    """Weights for the channels, from their means over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = _nearest_multiple_of_4(channels / 4)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        weights = self.conv_expand(functional.relu(self.conv_reduce(means)))
        return x * functional.hardsigmoid(weights)


def _nearest_multiple_of_4(value: float) -> int:
    """The nearest one, or the one above where that would lose more than a tenth."""
    nearest = max(4, int(value + 2) // 4 * 4)
    return nearest if nearest >= 0.9 * value else nearest + 4


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False
    )


def _active(convolution: nn.Conv2d, channels: int, *, active: bool) -> nn.Sequential:
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, *([nn.ReLU()] if active else []))
