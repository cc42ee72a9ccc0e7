"""Small networks of drawn shape, with everything that makes channels hard to follow."""

import torch
from torch import Tensor, nn

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Preprocess
from slimface.model.detector import Detector

PARTS = (
    "plain",
    "residual",
    "concatenated",
    "crossed",
    "depthwise",
    "ghost",
    "ghostly",
    "gated",
    "shared",
    "halved",
    "dead",
)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


class Part(nn.Module):
    """From ``width`` channels to ``width`` channels, in one of many ways."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        half = width // 2
        self.first = conv(width, width)
        self.second = conv(width, width)
        if kind == "concatenated":
            self.second = conv(width, half)
            self.third = conv(width, half)
            self.join = conv(4 * half, width, 1)
        elif kind == "crossed":
            self.second = conv(width, half)
            self.third = conv(width, width - half)
        elif kind == "depthwise":
            self.second = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.BatchNorm2d(width),
                nn.PReLU(),
                conv(width, width, 1),
            )
        elif kind in ("ghost", "ghostly"):
            self.second = conv(width, half)
            self.third = conv(half, half, groups=half)
            if kind == "ghost":
                self.join = conv(2 * half, width, 1)
        elif kind == "gated":
            self.second = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        elif kind == "halved":
            self.second = conv(width, width, stride=2)
            self.third = conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        match self.kind:
            case "residual":
                return x + self.second(y)
            case "concatenated":
                parts = [self.second(y), self.third(y), self.second(x), self.third(x)]
                return self.join(torch.cat(parts, dim=1))
            case "crossed":
                return y + torch.cat([self.second(x), self.third(x)], dim=1)
            case "ghost":
                some = self.second(y)
                return self.join(torch.cat([some, self.third(some)], dim=1))
            case "ghostly":
                some = self.second(y)
                return x + torch.cat([some, self.third(some)], dim=1)
            case "gated":
                return y * self.second(y).sigmoid()
            case "shared":
                return self.second(self.second(self.second(y)))
            case "halved":
                coarse = self.third(self.second(y))
                return y + nn.functional.interpolate(coarse, size=y.shape[-2:])
            case "dead":
                self.second(y)
                return y
            case _:
                return self.second(y)


class DrawnDetector(Detector):
    """Parts in a row, then two heads: a convolution, and linear layers on the flattened map."""

    head_names = ("head", "tail.2")
    trace_size = (16, 16)

    def __init__(self, kinds: tuple[str, ...], width: int) -> None:
        super().__init__(
            DetectorSpec(
                name="drawn",
                architecture=Architecture(name="drawn"),
                preprocess=Preprocess(),
                anchors=AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(16.0,)),)),
            )
        )
        self.stem = conv(3, width, 5, stride=4)
        self.parts = nn.Sequential(*(Part(kind, width) for kind in kinds), conv(width, width, 1))
        self.head = nn.Conv2d(width, 5, 1)
        self.tail = nn.Sequential(
            nn.Linear(16 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2)
        )

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.parts(self.stem(images))
        return self.head(features), self.tail(features.flatten(1))


def live_in_(detector: Detector, seed: int) -> Detector:
    """Give batch norms and slopes the numbers of a life in training, and switch to evaluation."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)
            elif isinstance(module, nn.PReLU):
                uniform(module.weight, 0.05, 0.4)
    return detector.eval()


def drawn_detector(kinds: tuple[str, ...], width: int, seed: int) -> DrawnDetector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = DrawnDetector(kinds, width)
    live_in_(detector, seed)
    return detector
