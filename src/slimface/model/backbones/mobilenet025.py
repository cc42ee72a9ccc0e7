"""MobileNet025: MobileNetV1 at a quarter of its width.

Source: Howard et al., "MobileNets", 2017, arXiv:1704.04861, table 1 with width multiplier 0.25.
Module names and the leaky activations, also after depthwise convolutions, are those of the
published RetinaFace weights.
"""

from torch import Tensor, nn

from slimface.model.backbones.backbone import Backbone

_STAGES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)),
    ((64, 128, 2), *[(128, 128, 1)] * 5),
    ((128, 256, 2), (256, 256, 1)),
)
"""Input channels, output channels and stride of each depthwise-separable convolution."""


class MobileNet025(Backbone):
    """0.21 million parameters."""

    channels = (64, 128, 256)
    classifier_names = ("fc",)

    def __init__(self) -> None:
        super().__init__()
        first, second, third = ([_separable(*row) for row in stage] for stage in _STAGES)
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), *_norm_act(8))
        self.stage1 = nn.Sequential(stem, *first)
        self.stage2 = nn.Sequential(*second)
        self.stage3 = nn.Sequential(*third)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.stage1(images)
        second = self.stage2(first)
        return first, second, self.stage3(second)


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(0.1)]


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        *_norm_act(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        *_norm_act(outputs),
    )
