"""RetinaFace: faces and their five landmarks in one pass, on any backbone.

Source: Deng et al., "RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild", CVPR 2020,
arXiv:1905.00641, as simplified by biubug6/Pytorch_Retinaface, whose module names these are: three
levels, plain convolutions in the context modules, no mesh. Differs in that a face has one logit
(face minus background: the same score, since a softmax over two is the sigmoid of their
difference).

Options of the architecture:
    backbone: mobilenet025, resnet50, ghostnet or mobilenetv3 (the published ones), or any name of
        timm's. What differs between timm and torchvision is meant as torchvision has it.
    width: Channels of the pyramid, a multiple of 4 (published: 64, with resnet50 256).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Postprocess, Preprocess
from slimface.errors import RecipeError
from slimface.model.backbones.backbone import PUBLISHED, STRIDES, build_backbone
from slimface.model.detector import Detector, RawTensors
from slimface.model.published import Entry, WeightFile, github

LEVELS = len(STRIDES)
LANDMARKS = 5
_HEADS = ("ClassHead", "BboxHead", "LandmarkHead")


class RetinaFace(Detector):
    """Three levels of strides 8, 16 and 32; the anchors of a cell are as many as the spec says."""

    head_names = tuple(f"{head}.{level}.conv1x1" for head in _HEADS for level in range(LEVELS))

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        backbone, width = _options(spec)
        counts = [len(level.sizes) for level in spec.anchors.levels]
        if [level.stride for level in spec.anchors.levels] != list(STRIDES):
            raise RecipeError(
                "RetinaFace has levels of the strides 8, 16 and 32; the spec has anchors for "
                f"{', '.join(str(level.stride) for level in spec.anchors.levels)}.\n"
                "Correct anchors.levels."
            )
        self.body = build_backbone(backbone)
        self.fpn = _Pyramid(self.body.channels, width)
        for level in range(1, LEVELS + 1):
            self.add_module(f"ssh{level}", _Context(width))
        for head, values in zip(_HEADS, (2, 4, 2 * LANDMARKS), strict=True):
            self.add_module(head, nn.ModuleList(_Head(width, n * values) for n in counts))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return three maps of classes, three of offsets, three of landmarks; finest first."""
        levels = [
            self.get_submodule(f"ssh{i}")(level)
            for i, level in enumerate(self.fpn(self.body(images)), start=1)
        ]
        return tuple(
            self.get_submodule(f"{head}.{i}")(level)
            for head in _HEADS
            for i, level in enumerate(levels)
        )

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """The channels of a cell are those of its first anchor, then those of its second."""
        classes = _rows(maps[:LEVELS], 2)
        offsets = _rows(maps[LEVELS : 2 * LEVELS], 4)
        points = _rows(maps[2 * LEVELS :], 2 * LANDMARKS)
        points = points.reshape(*points.shape[:2], LANDMARKS, 2)
        return RawTensors(classes[..., 1] - classes[..., 0], offsets, points)


def _rows(maps: tuple[Tensor, ...], values: int) -> Tensor:
    """Return ``(b, anchors, values)`` from maps of ``(b, anchors of a cell * values, h, w)``."""
    rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, values) for level in maps]
    return torch.cat(rows, dim=1)


class _Pyramid(nn.Module):
    """Maps of equal width, each with what the coarser ones know.

    Source: Lin et al., "Feature Pyramid Networks", CVPR 2017, arXiv:1612.03144, section 3; the map
    handed down is the one after its 3x3 convolution.
    """

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv(c, width, 1) for c in channels)
        self.merge1, self.merge2 = _conv(width, width, 3), _conv(width, width, 3)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + _up(coarse, middle))
        fine = self.merge1(fine + _up(middle, fine))
        return fine, middle, coarse


class _Context(nn.Module):
    """The outputs of one, two and three 3x3 convolutions, side by side.

    Source: Najibi et al., "SSH: Single Stage Headless Face Detector", ICCV 2017, arXiv:1708.03979,
    section 3.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        # Which activation it is goes by the width of the whole module, not of the layer.
        slope = _slope(width)
        self.conv3X3 = _conv(width, half, 3, active=False)
        self.conv5X5_1 = _conv(width, quarter, 3, slope=slope)
        self.conv5X5_2 = _conv(quarter, quarter, 3, active=False)
        self.conv7X7_2 = _conv(quarter, quarter, 3, slope=slope)
        self.conv7x7_3 = _conv(quarter, quarter, 3, active=False)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.conv5X5_1(x)
        far = self.conv7x7_3(self.conv7X7_2(middle))
        return functional.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(middle), far], dim=1))


class _Head(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x)  # type: ignore[no-any-return]


def _slope(width: int) -> float:
    return 0.1 if width <= 64 else 0.0


def _conv(
    inputs: int, outputs: int, kernel: int, *, slope: float | None = None, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if active:
        layers.append(nn.LeakyReLU(_slope(outputs) if slope is None else slope))
    return nn.Sequential(*layers)


def _up(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def _options(spec: DetectorSpec) -> tuple[str, int]:
    options = {"backbone": "mobilenet025", "width": 64, **spec.architecture.options}
    backbone, width = options.pop("backbone"), options.pop("width")
    if options:
        raise RecipeError(
            f"RetinaFace has no option {', '.join(sorted(options))}.\n"
            "Its options are backbone and width."
        )
    if not isinstance(backbone, str) or not isinstance(width, int) or width < 4 or width % 4:
        raise RecipeError(
            f"RetinaFace cannot have backbone {backbone!r} and width {width!r}.\n"
            "Give the name of a backbone, and a multiple of 4."
        )
    return backbone, width


_AS_PUBLISHED = Preprocess(mean=(123, 117, 104), colour="bgr")
_AS_TIMM = Preprocess(
    # What ImageNet weights expect; 58 is the mean of the three deviations.
    mean=(123.7, 116.3, 103.5),
    scale=1 / 58,
    # timm's networks may drop the last rows of a map that is not a whole number of cells.
    multiple_of=STRIDES[-1],
)


def retinaface(
    name: str = "retinaface-mobilenet025",
    *,
    backbone: str = "mobilenet025",
    width: int | None = None,
    sizes: tuple[tuple[float, ...], ...] = ((16, 32), (64, 128), (256, 512)),
) -> DetectorSpec:
    """RetinaFace as published.

    Args:
        name: For people.
        backbone: See above.
        width: Channels of the pyramid; None: as published for this backbone.
        sizes: Sides of the anchors of a cell on each level. Weights do not say which they were
            trained with; the 1 MB detectors of the same author have others under equal keys.
    """
    if width is None:
        width = 256 if backbone == "resnet50" else 64
    levels = [AnchorLevel(stride=s, sizes=side) for s, side in zip(STRIDES, sizes, strict=True)]
    return DetectorSpec(
        name=name,
        architecture=Architecture(
            name="retinaface", options={"backbone": backbone, "width": width}
        ),
        preprocess=_AS_PUBLISHED if backbone in PUBLISHED else _AS_TIMM,
        anchors=AnchorGrid(levels=tuple(levels)),
        postprocess=Postprocess(score_floor=0.5, nms_overlap=0.4, pre_nms=5000, cap=750),
        landmarks=LANDMARKS,
    )


_RENAMES = {"FPN.": "fpn."}


ENTRIES = (
    Entry(
        spec=retinaface("retinaface-mobilenet025"),
        files=(
            WeightFile(
                path="retinaface/mobilenet0.25_Final.pth",
                # The author's own link leads to a drive that programs cannot fetch from.
                url="https://github.com/elliottzheng/face-detection/releases/download/0.0.1/"
                "mobilenet0.25_Final.pth",
                sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
                size=1789735,
            ),
        ),
        licence="MIT",
        origin="biubug6/Pytorch_Retinaface",
        renames=_RENAMES,
    ),
    Entry(
        spec=retinaface("retinaface-mobilenet025-1mb", sizes=((10, 20), (32, 64), (128, 256))),
        files=(
            github(
                "biubug6/Face-Detector-1MB-with-landmark",
                "7f49cebe8c46c0d36debf2f4776dff35dd59a071",
                "weights/mobilenet0.25_Final.pth",
                local="retinaface/mobilenet0.25_1mb.pth",
                sha256="ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1",
                size=1789735,
            ),
        ),
        licence="MIT",
        origin="biubug6/Face-Detector-1MB-with-landmark",
        note="trained at 300 px, with smaller anchors",
    ),
)


def untrained(name: str) -> Entry | None:
    """Return a RetinaFace without published weights, to be trained.

    Args:
        name: ``retinaface:`` and a published backbone or one of timm's; ``retinaface-`` does as
            well before the published ones.

    Returns:
        The entry, without files; None if the name says something else.
    """
    family, colon, backbone = name.partition(":")
    if not colon:
        family, _, backbone = name.partition("-")
    if family != "retinaface" or not backbone or (not colon and backbone not in PUBLISHED):
        return None
    spec = retinaface(f"retinaface-{backbone}", backbone=backbone)
    return Entry(spec=spec, files=(), licence="", origin="", renames=_RENAMES)
