"""Blocks: the small stacks of layers that several detectors are made of."""

from torch import Tensor, nn


def conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, activation: bool = True
) -> nn.Sequential:
    """A convolution without bias that keeps ``ceil(size / stride)``, batch norm, and ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions added to their input; no activation after the addition."""

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.res_layer = nn.Sequential(
            *conv_norm(channels, channels, 3, stride=stride),
            *conv_norm(channels, channels, 3, activation=False),
        )
        self.shortcut_layer: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut_layer = conv_norm(channels, channels, 1, stride=stride, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)  # type: ignore[no-any-return]
