"""YuNet: 76 thousand parameters of 1x1 and depthwise 3x3 convolutions, without anchors.

Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research,
2023; the structure is that of its published ONNX file. A cell says how far right and below its top
left corner a face is centred and the logarithm of its sides, all in cells, which is what a codec
without variances makes of an anchor of the cell's size, centred at that corner.

Differs in that a face has one logit, of the published score: the root of the product of the scores
for "a face" and for "how well placed"; and in that maps round up, so that any input size will do.
The published file is for inference, its batch norms are part of its convolutions. Here they are
back; they change nothing, and are still there to train.

Options of the architecture:
    width: Channels of all but the first three convolutions (published: 64).
    stem: Channels of those (published: 16).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimface.core.anchors import AnchorGrid, AnchorLevel, BoxCodec
from slimface.core.spec import Architecture, DetectorSpec, Postprocess, Preprocess
from slimface.errors import CheckpointError, MissingError, RecipeError
from slimface.model.detector import Detector, RawTensors
from slimface.model.published import Entry, github

STRIDES = (8, 16, 32)
LEVELS = len(STRIDES)
LANDMARKS = 5
_HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 2 * LANDMARKS}
_FIRST = "backbone.model0.conv1"
_PIXELS = 128.0
_TINY = 1e-30
_MOST_BYTES = 1 << 24


class YuNet(Detector):
    """Three levels of strides 8, 16 and 32, one prediction a cell."""

    head_names = tuple(
        f"bbox_head.multi_level_{head}.{level}.conv2" for head in _HEADS for level in range(LEVELS)
    )

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        width, stem = _options(spec)
        self.backbone = _Backbone(stem, width)
        self.neck = _Neck(width)
        self.bbox_head = _Heads(width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.constant_(module.bias, 0.02)  # type: ignore[arg-type]
        self._is_awake = False

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return three maps each of face, placement, offsets and landmarks; finest level first."""
        if self.training and not self._is_awake:
            self._is_awake = _wake_norms_(self, images)
        return self.bbox_head(self.neck(self.backbone(images)))  # type: ignore[no-any-return]

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        face, placement, offsets, points = (
            torch.cat([level.flatten(2).transpose(1, 2) for level in maps[i : i + LEVELS]], dim=1)
            for i in range(0, len(maps), LEVELS)
        )
        landmarks = points.reshape(*points.shape[:2], LANDMARKS, 2)
        return RawTensors(_joint_logit(face[..., 0], placement[..., 0]), offsets, landmarks)


def _wake_norms_(detector: YuNet, images: Tensor) -> bool:
    """Give batch norms that change nothing the statistics of ``images``, and change nothing still.

    As they are published, the first training step would normalise what never was normalised, and
    throw the weights away (on 20 pictures AP falls from 29 to 2; so it falls to 28). Norms that
    keep their statistics in training normalise nothing: they sleep on.

    Source: data-dependent initialisation as in Kingma and Dhariwal, "Glow", NeurIPS 2018,
    arXiv:1807.03039, section 3.1.

    Returns:
        Whether the norms are at work, so that there is nothing left to do.
    """
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    if not any(norm.training for norm in norms):
        return False
    if not all(_is_idle(norm) for norm in norms):
        return True

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        # Trained with its statistics kept, a sleeping norm has learnt a scale and a shift.
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator, arg-type]
        weight = gain * (variance + norm.eps).sqrt()  # type: ignore[operator]
        bias = norm.bias + gain * mean  # type: ignore[operator]
        new = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
        norm.load_state_dict(new, strict=False)

    hooks = [norm.register_forward_pre_hook(take) for norm in norms]
    modes = {module: module.training for module in detector.modules()}
    detector.eval()
    with torch.no_grad():
        detector.maps(images)
    for module, mode in modes.items():
        module.training = mode
    for hook in hooks:
        hook.remove()
    return True


def _is_idle(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm has statistics of no picture, nor those of a new one; its scale may be any."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    return not mean.any() and not (variance == 1).any()


def _idle_norm(channels: int, *, divisor: float = 1.0) -> nn.BatchNorm2d:
    """A batch norm that only divides. A new one changes its input: it adds epsilon to variances."""
    norm = nn.BatchNorm2d(channels)
    assert norm.running_var is not None
    norm.running_var.fill_(divisor**2 - norm.eps)
    return norm


def _joint_logit(first: Tensor, second: Tensor) -> Tensor:
    """Return the logit of ``sqrt(sigmoid(first) * sigmoid(second))``.

    With scores p and q and s the root of p q: 1 - s = (1 - p q) / (1 + s), and
    1 - p q = (1 - p) + p (1 - q), in which nothing cancels. Written without sigmoids: that of
    ONNX Runtime is off by 1 % where it is near 0, and so would be the logits.
    """
    no_first, no_second = functional.softplus(first), functional.softplus(second)
    log_p, log_q = first - no_first, second - no_second
    log_s = 0.5 * (log_p + log_q)
    rest = torch.exp(-no_first) + torch.exp(log_p - no_second)
    return log_s - torch.log(rest.clamp(min=_TINY)) + torch.log1p(torch.exp(log_s))


class _Unit(nn.Module):
    """A 1x1 convolution and a depthwise 3x3 one; nothing between them."""

    def __init__(self, inputs: int, outputs: int, *, active: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)
        self.bn = nn.BatchNorm2d(outputs) if active else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y if self.bn is None else functional.relu(self.bn(y))


class _Pair(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _Unit(inputs, inputs)
        self.conv2 = _Unit(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))  # type: ignore[no-any-return]


class _Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, 2, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _Unit(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv2(functional.relu(self.bn1(self.conv1(images))))  # type: ignore[no-any-return]


class _Backbone(nn.Module):
    def __init__(self, stem: int, width: int) -> None:
        super().__init__()
        self.model0 = _Stem(stem)
        self.model1 = _Pair(stem, width)
        self.model2, self.model3 = _Pair(width, width), _Pair(width, width)
        self.model4, self.model5 = _Pair(width, width), _Pair(width, width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.model2(self.model1(_half(self.model0(images))))
        fine = self.model3(_half(x))
        middle = self.model4(_half(fine))
        return fine, middle, self.model5(_half(middle))


class _Neck(nn.Module):
    """A pyramid that adds before it convolves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Unit(width, width) for _ in range(LEVELS))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.lateral_convs[2](maps[2])
        middle = self.lateral_convs[1](maps[1] + _up(coarse, maps[1]))
        fine = self.lateral_convs[0](maps[0] + _up(middle, maps[0]))
        return fine, middle, coarse


class _Heads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.multi_level_share_convs = nn.ModuleList(
            nn.Sequential(_Unit(width, width)) for _ in range(LEVELS)
        )
        for head, values in _HEADS.items():
            units = (_Unit(width, values, active=False) for _ in range(LEVELS))
            self.add_module(f"multi_level_{head}", nn.ModuleList(units))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        levels = [layer(x) for layer, x in zip(self.multi_level_share_convs, maps, strict=True)]
        return tuple(
            self.get_submodule(f"multi_level_{head}.{i}")(level)
            for head in _HEADS
            for i, level in enumerate(levels)
        )


def _half(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, ceil_mode=True)


def _up(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def _options(spec: DetectorSpec) -> tuple[int, int]:
    options = {"width": 64, "stem": 16, **spec.architecture.options}
    width, stem = options.pop("width"), options.pop("stem")
    if options:
        raise RecipeError(
            f"YuNet has no option {', '.join(sorted(options))}.\nIts options are width and stem."
        )
    if not isinstance(width, int) or not isinstance(stem, int) or min(width, stem) < 1:
        raise RecipeError(
            f"YuNet cannot have width {width!r} and stem {stem!r}.\nGive at least 1 channel each."
        )
    return width, stem


def yunet(name: str = "yunet-n", *, width: int = 64) -> DetectorSpec:
    """YuNet-n as published; any width to train."""
    levels = tuple(AnchorLevel(stride=stride, sizes=(float(stride),)) for stride in STRIDES)
    return DetectorSpec(
        name=name,
        architecture=Architecture(name="yunet", options={"width": width}),
        preprocess=Preprocess(colour="bgr", multiple_of=STRIDES[-1]),
        anchors=AnchorGrid(levels=levels, centre=0.0),
        codec=BoxCodec(centre_variance=1, size_variance=1),
        postprocess=Postprocess(score_floor=0.5, nms_overlap=0.3, pre_nms=5000, cap=750),
        landmarks=LANDMARKS,
    )


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the published ONNX file by the names of this module.

    Raises:
        MissingError: There is no such file, or the package onnx is not installed.
        CheckpointError: It is no ONNX file, too large a one, or that of another network.
    """
    if not path.is_file():
        raise MissingError(f"There is no file {path}.\nCheck the path.")
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(
            f"{path} has {path.stat().st_size:,} bytes; YuNet's weights have 0.3 million.\n"
            "It holds another network."
        )
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingError(
            "The published weights of YuNet are an ONNX file, and the package onnx is not "
            "installed.\nInstall it with: pip install 'slimface[export]'"
        ) from error
    try:
        graph: Any = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise CheckpointError(f"{path} is no ONNX file: {error}.\nFetch it again.") from None
    values = {item.name: item for item in graph.initializer}
    tensors: dict[str, Tensor] = {}
    layer = ""
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        layer = _layer_name(node.input[1], layer)
        if len(node.input) != 3 or any(name not in values for name in node.input[1:]):
            raise CheckpointError(
                f"{path}: the convolution {layer} has no stored weight and bias.\n"
                "The file holds another network; fetch the published one."
            )
        for kind, name in zip(("weight", "bias"), node.input[1:], strict=True):
            array = numpy_helper.to_array(values[name])
            tensors[f"{layer}.{kind}"] = torch.from_numpy(array.copy())
    return _with_norms(tensors)


def _layer_name(weight: str, previous: str) -> str:
    """Name of a convolution. Those with a batch norm have lost theirs; each follows a known one."""
    if not previous:
        return _FIRST
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return previous.removesuffix(".conv1") + ".conv2"


def _with_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch norms that became part of the convolutions: they change nothing, or nearly.

    The weights of the first layer take pixels of up to 255, so they are small, and their gradients
    are 200 times those of any other layer: no learning rate would do for both. It is multiplied by
    a power of two, and its norm divides by that: to the bit the same network.
    """
    found = dict(tensors)
    for name, bias in tensors.items():
        if not name.endswith(".bias"):
            continue
        layer = name.removesuffix(".bias")
        divisor = 1.0
        if layer == _FIRST:
            norm, divisor = "backbone.model0.bn1", _PIXELS
            for kind in ("weight", "bias"):
                found[f"{layer}.{kind}"] = tensors[f"{layer}.{kind}"] * divisor
        elif layer.endswith(".conv2") and layer not in YuNet.head_names:
            norm = layer.removesuffix("conv2") + "bn"
        else:
            continue
        idle = _idle_norm(len(bias), divisor=divisor).state_dict()
        found |= {f"{norm}.{key}": value for key, value in idle.items()}
    return found


ENTRIES = (
    Entry(
        spec=yunet("yunet-n"),
        files=(
            github(
                "ShiqiYu/libfacedetection.train",
                "dca340aa082c71081a68d17db8e58b33a58a914b",
                "onnx/yunet_n_dynamic.onnx",
                local="peers/yunet_n_dynamic.onnx",
                sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
                size=322906,
            ),
        ),
        licence="Apache-2.0",
        origin="ShiqiYu/libfacedetection.train",
    ),
)

READERS = {".onnx": read_onnx}
