"""MobileNetV3, of the widths that a published RetinaFace gives it: 64, 128 and 256 channels.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244. Differs from its
tables in the widths, and in that channels are weighted after the last convolution of a block, by a
squeeze with batch norms. These need more than one picture a batch to train.
"""

from torch import Tensor, nn

from slimface.model.backbones.backbone import Backbone

_Row = tuple[int, int, int, int, bool, int]
_STAGES: tuple[tuple[type[nn.Module], tuple[_Row, ...]], ...] = (
    (
        nn.ReLU,
        (
            (3, 16, 16, 16, False, 1),
            (3, 16, 64, 32, False, 2),
            (3, 32, 72, 32, False, 1),
            (5, 32, 72, 64, True, 2),
            (5, 64, 120, 64, True, 1),
            (5, 64, 120, 64, True, 1),
        ),
    ),
    (
        nn.Hardswish,
        (
            (3, 64, 240, 80, False, 2),
            (3, 80, 200, 80, False, 1),
            (3, 80, 184, 80, False, 1),
            (3, 80, 184, 128, False, 1),
        ),
    ),
    (
        nn.Hardswish,
        (
            (3, 128, 480, 128, True, 1),
            (3, 128, 672, 128, True, 1),
            (5, 128, 672, 256, True, 1),
            (5, 256, 672, 256, True, 2),
            (5, 256, 960, 256, True, 1),
        ),
    ),
)
"""Activation; kernel, input, expanded and output channels, squeeze-and-excitation, stride."""


class MobileNetV3(Backbone):
    """1.8 million parameters."""

    channels = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.hs1 = nn.Hardswish()
        self.bneck1, self.bneck2, self.bneck3 = (
            nn.Sequential(*(_Block(*row, activation=activation) for row in rows))
            for activation, rows in _STAGES
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self.hs1(self.bn1(self.conv1(images)))
        first = self.bneck1(stem)
        second = self.bneck2(first)
        return first, second, self.bneck3(second)


class _Block(nn.Module):
    def __init__(
        self,
        kernel: int,
        inputs: int,
        expanded: int,
        outputs: int,
        squeeze: bool,
        stride: int,
        *,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, expanded, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.nolinear1 = activation()
        self.conv2 = nn.Conv2d(
            expanded, expanded, kernel, stride, padding=kernel // 2, groups=expanded, bias=False
        )
        self.bn2 = nn.BatchNorm2d(expanded)
        self.nolinear2 = activation()
        self.conv3 = nn.Conv2d(expanded, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.se: nn.Module = _Excitation(outputs) if squeeze else nn.Identity()
        self.residual = stride == 1
        self.shortcut = nn.Sequential()
        if self.residual and inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.nolinear1(self.bn1(self.conv1(x)))
        y = self.nolinear2(self.bn2(self.conv2(y)))
        y = self.se(self.bn3(self.conv3(y)))
        return y + self.shortcut(x) if self.residual else y  # type: ignore[no-any-return]


class _Excitation(nn.Module):
    """Weights for the channels, from their means over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // 4
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, reduced, 1, bias=False),
            nn.BatchNorm2d(reduced),
            nn.ReLU(),
            nn.Conv2d(reduced, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.se(x)  # type: ignore[no-any-return]
