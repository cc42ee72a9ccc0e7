"""EXTD: one small stage applied six times over, so that 0.16 million parameters serve six levels.

Source: Yoo et al., "EXTD: Extremely Tiny Face Detector via Iterative Filter Reuse", 2019,
arXiv:1906.06579. Module names are those of the published weights. Differs in that a face has one
logit (face minus background: the same score, since a softmax over two is the sigmoid of their
difference).

Options of the architecture:
    width: Channels of every level (published: 64, 48, 32).
    stem: Channels of the first convolution (published: 64).
    expansions: Widening of each inverted residual of the shared stage, the last of which halves
        the map (published: 2, 2, 4, 4; for width 32: 2, 2, 4, 4, 2, 2).
    active: Whether blocks end in an activation (published: for width 32 only).
"""

from torch import Tensor, nn
from torch.nn import functional

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Option, Postprocess, Preprocess
from slimface.errors import RecipeError
from slimface.model.published import ACADEMIC, LFDP, Entry, github, lfdp_file
from slimface.model.s3fd import LEVELS, S3fdDetector


class EXTD(S3fdDetector):
    """One stage of inverted residuals, applied six times, and a pyramid.

    The stage's batch norms have one set of statistics, which each training step updates six times.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        width, stem, expansions, active = _options(spec)
        *even, halving = expansions
        blocks: list[nn.Module] = [_stem(stem), _separable(stem, width, active=active)]
        blocks += [_inverted(width, expansion, stride=1, active=active) for expansion in even]
        blocks.append(_inverted(width, halving, stride=2, active=active))
        self.base = nn.ModuleList(blocks)
        self.upfeat = nn.ModuleList(_upsampled(width) for _ in range(LEVELS - 1))
        self.make_heads(width, kernel=3)
        _initialise(self)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Return the six maps of the pyramid."""
        x = self.base[1](self.base[0](images))
        stages: list[Tensor] = []
        for _ in range(LEVELS):
            for block in self.base[2:]:
                x = block(x)
            stages.append(x)
        levels = [stages[-1]]
        for merge, stage in zip(self.upfeat, reversed(stages[:-1]), strict=True):
            above = functional.interpolate(
                levels[0], size=stage.shape[-2:], mode="bilinear", align_corners=False
            )
            levels.insert(0, merge(above) + stage)
        return levels


class _Block(nn.Module):
    """A stack of layers, added to its input where the shapes allow it."""

    def __init__(self, layers: list[nn.Module], *, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.PReLU()]


def _stem(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, outputs, 3, 2, padding=1, bias=False), *_norm_act(outputs))


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    # With a bias, which the batch norm after it makes idle: the published keys have it.
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)


def _project(inputs: int, outputs: int, *, active: bool) -> list[nn.Module]:
    layers = [nn.Conv2d(inputs, outputs, 1, bias=False), *_norm_act(outputs)]
    return layers if active else layers[:2]


def _separable(inputs: int, outputs: int, *, active: bool) -> _Block:
    layers = [_depthwise(inputs, 1), *_norm_act(inputs), *_project(inputs, outputs, active=active)]
    return _Block(layers, residual=inputs == outputs)


def _inverted(width: int, expansion: int, *, stride: int, active: bool) -> _Block:
    wide = width * expansion
    layers = [
        *_project(width, wide, active=True),
        _depthwise(wide, stride),
        *_norm_act(wide),
        *_project(wide, width, active=active),
    ]
    return _Block(layers, residual=stride == 1)


def _upsampled(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _initialise(detector: EXTD) -> None:
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_DEFAULTS: dict[str, Option] = {
    "width": 64, "stem": 64, "expansions": (2, 2, 4, 4), "active": False,
}  # fmt: skip


def _options(spec: DetectorSpec) -> tuple[int, int, tuple[int, ...], bool]:
    options = {**_DEFAULTS, **spec.architecture.options}
    unknown = sorted(options.keys() - _DEFAULTS.keys())
    if unknown:
        raise RecipeError(
            f"EXTD has no option {', '.join(unknown)}.\nIts options are {', '.join(_DEFAULTS)}."
        )
    width, stem, expansions, active = (options[name] for name in _DEFAULTS)
    if not (isinstance(width, int) and isinstance(stem, int) and min(width, stem) > 0):
        raise RecipeError(
            f"EXTD cannot have width {width!r} and stem {stem!r}.\nGive at least 1 channel each."
        )
    if not isinstance(expansions, tuple) or not expansions or min(expansions) < 1:
        raise RecipeError(
            f"EXTD cannot have expansions {expansions!r}.\n"
            "Give a list of at least one whole number from 1."
        )
    return width, stem, expansions, bool(active)


def extd(name: str = "extd-64", *, width: int = 64) -> DetectorSpec:
    """EXTD of the published layout for this width; other widths have that of 64."""
    options: dict[str, Option] = {"width": width}
    if width == 32:
        options |= {"expansions": (2, 2, 4, 4, 2, 2), "active": True}
    levels = tuple(AnchorLevel(stride=4 << i, sizes=(float(16 << i),)) for i in range(LEVELS))
    return DetectorSpec(
        name=name,
        architecture=Architecture(name="extd", options=options),
        preprocess=Preprocess(mean=(123, 117, 104)),
        anchors=AnchorGrid(levels=levels),
        postprocess=Postprocess(score_floor=0.5, nms_overlap=0.3, pre_nms=5000, cap=750),
    )


def _extd(width: int, sha256: str, size: int) -> Entry:
    file = github(
        "clovaai/EXTD_Pytorch",
        "c5ea3a8fec816002d0f39d2664393ed21fa7d0f0",
        f"weights/EXTD_{width}.pth",
        local=f"extd/EXTD_{width}.pth",
        sha256=sha256,
        size=size,
    )
    spec = extd(f"extd-{width}", width=width)
    return Entry(spec=spec, files=(file,), licence="MIT", origin="clovaai/EXTD_Pytorch")


ENTRIES = (
    _extd(32, "36a0e68ae5dda995b5efe9ab457ee0c5276ae09a8e93e3a25d20aeae2582d446", 301897),
    _extd(48, "3f05368c0d39a55c637b2fa7ef06a8626efb11f9cba1c3da057c5dd4f32982e3", 443717),
    _extd(64, "34f9b1eea0b9d477c8409ea236562662c29062553d6fd84a594530b087baefe2", 696881),
    Entry(
        spec=extd("extd-64-lfdp-fpgm50"),
        files=(
            lfdp_file(
                "f797ab4dcc2522d10b6efc96f57468c65cf8ec65",
                "Pruned_Models/EXTD/FPGM/EXTD50_FPGM.pth",
                "extd/lfdp_fpgm50.pth",
                "8aa56029f9a0b552692bb439e7792b85a46de1becca95a5a8b3ff5a8827be502",
                722013,
            ),
        ),
        licence=ACADEMIC,
        origin=LFDP,
        note="filters zeroed, not removed",
    ),
)
