"""EResFD: 92 thousand parameters of plain 3x3 residual blocks, and a cascade of context.

Source: Jeong et al., "EResFD: Rediscovery of the Effectiveness of Standard Convolution for
Lightweight Face Detection", WACV 2024, arXiv:2204.01209. Module names are those of the published
weights. Differs in that the fusion weights are normalised out of place, so that the network can be
trained, and in that a face has one logit (face minus background: the same score, since a softmax
over two is the sigmoid of their difference).

Options of the architecture:
    width: Channels of every stage, at least 4 (published: 16).
    stem: Channels of the first two convolutions (published: 8).
    legacy_fpn: The pyramid of the B-FPGM weights, which forgets its last input: the sixth level
        repeats the fifth.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Postprocess, Preprocess
from slimface.errors import RecipeError
from slimface.model.blocks import Residual, conv_norm
from slimface.model.published import ACADEMIC, LFDP, Entry, WeightFile, github, lfdp_file
from slimface.model.s3fd import LEVELS, S3fdDetector

_BLOCKS = (3, 3, 3, 2, 2)
_EPSILON = 1e-4


class ERESFD(S3fdDetector):
    """Residual stages, a pyramid with learnt fusion weights, a context module a level."""

    constant_names = ("base.m0.fpn.w1",)

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        options = {"width": 16, "stem": 8, "legacy_fpn": False, **spec.architecture.options}
        width, stem, legacy = (options.pop(key) for key in ("width", "stem", "legacy_fpn"))
        if options:
            raise RecipeError(
                f"EResFD has no option {', '.join(sorted(options))}.\n"
                "Its options are width, stem and legacy_fpn."
            )
        if not isinstance(width, int) or width < 4 or not isinstance(stem, int) or stem < 1:
            raise RecipeError(
                f"EResFD cannot have width {width!r} and stem {stem!r}.\n"
                "Give a width of at least 4 and a stem of at least 1 channel."
            )
        self.base = _Backbone(stem, width, legacy_fpn=bool(legacy))
        self.make_heads(width, kernel=1)
        _initialise(self)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Return the six maps behind the context modules."""
        levels: list[Tensor] = self.base(images)
        return levels


class _Backbone(nn.Module):
    def __init__(self, stem: int, width: int, *, legacy_fpn: bool) -> None:
        super().__init__()
        # The published first convolution has no activation.
        self.conv1 = conv_norm(3, stem, 5, stride=4, activation=False)
        self.conv2 = conv_norm(stem, stem, 3)
        self.conv3 = conv_norm(stem, width, 3)
        self.conv4 = Residual(width)
        self.m0 = _Pyramid(width, legacy_fpn=legacy_fpn)

    def forward(self, images: Tensor) -> list[Tensor]:
        finest = self.conv4(self.conv3(self.conv2(self.conv1(images))))
        return self.m0(finest)  # type: ignore[no-any-return]


class _Pyramid(nn.Module):
    """Stages of the backbone, fusion of their outputs, and context for each level."""

    def __init__(self, width: int, *, legacy_fpn: bool) -> None:
        super().__init__()
        for i, blocks in enumerate(_BLOCKS, start=1):
            stage = [Residual(width, stride=2 if j == 0 else 1) for j in range(blocks)]
            self.add_module(f"b2_{i}", nn.Sequential(*stage))
        self.fpn = _Fusion(width, legacy=legacy_fpn)
        for level in range(LEVELS):
            self.add_module(f"FEM_{level}", _Context(width))

    def forward(self, finest: Tensor) -> list[Tensor]:
        stages = [finest]
        for i in range(1, LEVELS):
            stages.append(self.get_submodule(f"b2_{i}")(stages[-1]))
        fused = self.fpn(stages)
        return [self.get_submodule(f"FEM_{i}")(level) for i, level in enumerate(fused)]


class _Named(nn.Module):
    """A stack of layers under the name the published keys have for it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class _Fusion(nn.Module):
    """Separated feature pyramid: two coarse levels are fused apart from the finer ones.

    Source: the paper, section 3.2 and figure 3; weights as in Tan et al., "EfficientDet", CVPR
    2020, arXiv:1911.09070, section 3.3 (fast normalised fusion), normalised twice as published.
    """

    def __init__(self, width: int, *, legacy: bool) -> None:
        super().__init__()
        self.legacy = legacy
        self.w1 = nn.Parameter(torch.full((2, 9), 0.5))
        self.laterals = nn.ModuleList(_Named(conv_norm(width, width, 1)) for _ in range(5))
        self.itm = nn.ModuleList(_Named(conv_norm(width, width, 3)) for _ in range(4))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        weights = functional.relu(self.w1)
        for _ in range(2):
            weights = weights / (weights.sum(dim=0, keepdim=True) + _EPSILON)

        def mix(k: int, first: Tensor, second: Tensor) -> Tensor:
            return weights[0, k] * first + weights[1, k] * second

        def up(x: Tensor, like: Tensor) -> Tensor:
            return functional.interpolate(x, size=like.shape[-2:], mode="nearest")

        lateral = [layer(stage) for layer, stage in zip(self.laterals, stages[:5], strict=True)]
        top = lateral[4] if self.legacy else up(stages[5], lateral[4])
        t4 = mix(4, lateral[4], top)
        # The separation: level 3 is fused with the raw stage above it, not with t4.
        t3 = mix(3, lateral[3], up(stages[4], lateral[3]))
        t2 = mix(2, lateral[2], up(t3, lateral[2]))
        t1 = mix(1, lateral[1], up(t2, lateral[1]))
        t0 = mix(0, lateral[0], up(t1, lateral[0]))
        fused = [t0]
        for i, t in enumerate((t1, t2, t3, t4)):
            fused.append(mix(5 + i, self.itm[i](t), stages[1 + i]))
        fused.append(lateral[4] if self.legacy else stages[5])
        return fused


class _Context(nn.Module):
    """Cascade context: the outputs of one, three and five 3x3 convolutions, side by side.

    Source: the paper, section 3.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        near, far = width // 2, width // 4
        middle = width - near - far
        self.res_branch1 = conv_norm(width, near, 3)
        self.res_branch2 = nn.Sequential(*conv_norm(near, middle, 3), *conv_norm(middle, middle, 3))
        self.res_branch3 = nn.Sequential(*conv_norm(middle, far, 3), *conv_norm(far, far, 3))

    def forward(self, x: Tensor) -> Tensor:
        first = self.res_branch1(x)
        second = self.res_branch2(first)
        third = self.res_branch3(second)
        # The published network has another ReLU here, which changes nothing after these three.
        return torch.cat([first, second, third], dim=1)


def _initialise(detector: ERESFD) -> None:
    """He initialisation on the outputs, batch norm at one half; heads start near silence."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
    for head in (*detector.conf, *detector.loc):
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)


def _spec(name: str, *, height_per_width: float, legacy_fpn: bool, width: int = 16) -> DetectorSpec:
    levels = [AnchorLevel(stride=4 << i, sizes=(float(16 << i),)) for i in range(LEVELS)]
    if legacy_fpn:
        # Its last map has the size of the fifth, yet it was trained with centres 128 px apart.
        levels[5] = AnchorLevel(stride=64, step=128, sizes=(512.0,))
    return DetectorSpec(
        name=name,
        architecture=Architecture(
            name="eresfd", options={"width": width, "stem": width // 2, "legacy_fpn": legacy_fpn}
        ),
        preprocess=Preprocess(mean=(123, 117, 104)),
        anchors=AnchorGrid(levels=tuple(levels), height_per_width=height_per_width),
        # Background sits near 0.106, so the usual floor of 0.05 would keep every anchor.
        postprocess=Postprocess(score_floor=0.4, nms_overlap=0.3, pre_nms=5000, cap=750),
    )


def naver(name: str = "eresfd", *, width: int = 16) -> DetectorSpec:
    """The variant of clovaai/EResFD: anchors 1.25 times as high as wide. Any width to train."""
    return _spec(name, height_per_width=1.25, legacy_fpn=False, width=width)


def lfdp(name: str = "eresfd-lfdp") -> DetectorSpec:
    """The variant of IDT-ITI/Lightweight-Face-Detector-Pruning: square anchors."""
    return _spec(name, height_per_width=1.0, legacy_fpn=False)


def bfpgm(name: str = "eresfd-bfpgm") -> DetectorSpec:
    """The variant of IDT-ITI/B-FPGM: square anchors, and a pyramid without its last input."""
    return _spec(name, height_per_width=1.0, legacy_fpn=True)


def _naver(part: str, sha256: str, size: int) -> WeightFile:
    name = f"eresfd_16.pth.{part}.pth"
    return github(
        "clovaai/EResFD",
        "69c24b2814c901c84c74758feec5d3cd59c27f71",
        f"weights/{name}",
        local=f"eresfd/{name}",
        sha256=sha256,
        size=size,
        prefix=f"{part}.",
    )


def _bfpgm(commit: str, path: str, local: str, sha256: str, size: int) -> WeightFile:
    path, local = f"Pruned Models/{path}", f"eresfd/{local}"
    return github("IDT-ITI/B-FPGM", commit, path, local=local, sha256=sha256, size=size)


_BFPGM_ORIGIN = "IDT-ITI/B-FPGM"
_BFPGM_ALIASES = {
    **{f"base.m0.layer{i}.": f"base.m0.b2_{i}." for i in range(1, 6)},
    "base.m0.layer6.": "base.m0.fpn.",
    **{f"base.m0.layer{i + 7}.": f"base.m0.FEM_{i}." for i in range(6)},
    **{f"{head}{i}.": f"{head}.{i}." for head in ("loc", "conf") for i in range(6)},
}


ENTRIES = (
    Entry(
        spec=naver("eresfd"),
        # Two more files of this release, act_loc and act_conf, hold no tensor.
        files=(
            _naver(
                "base", "04164e2853fdc39b7da2ccd0c6c41ea544f6a6e7b1972dc4ad463d978760c10c", 526310
            ),
            _naver("loc", "030f66c4c5424c79299eb89b368d0ec193db3a134dcceb1afe86f0a7123f7336", 5547),
            _naver(
                "conf", "4e3ef145b262334355a38f394d73a9bd9627c46fb6eceaa263cdbbd03d4af3f4", 4907
            ),
        ),
        licence="Apache-2.0",
        origin="clovaai/EResFD",
    ),
    Entry(
        spec=lfdp("eresfd-lfdp"),
        files=(
            lfdp_file(
                "4dffb31a68b2d2542654f56869c62c47f3c36a69",
                "EResFD-main/weights/ERES.pth",
                "eresfd/lfdp_ERES.pth",
                "092c420b765db450fb9de58944875bfc41624f69136d40e28e072c1a0e6e729b",
                522548,
            ),
        ),
        licence=ACADEMIC,
        origin=LFDP,
    ),
    Entry(
        spec=lfdp("eresfd-lfdp-fpgm50"),
        files=(
            lfdp_file(
                "2698e4ce17a9a20c6cac1d144fff9f62804deb67",
                "Pruned Models/ERESFD/FPGM/ERES50_FPGM.pth",
                "eresfd/lfdp_fpgm50.pth",
                "e70e9f999f4a1719b85777b1924dcb473f8003d3483406d79642546e2cd1a177",
                542876,
            ),
        ),
        licence=ACADEMIC,
        origin=LFDP,
        note="filters zeroed, not removed",
    ),
    Entry(
        spec=bfpgm("eresfd-bfpgm"),
        files=(
            _bfpgm(
                "f12823a56c8ff0ef2b66f4d801369a835a2041d3",
                "EResFD-original.pth",
                "bfpgm_original.pth",
                "b3873281e634c2191e0f43efe96fe4c331f6878d23f6d4b5931c66c249ba142b",
                611496,
            ),
        ),
        licence=ACADEMIC,
        origin=_BFPGM_ORIGIN,
        aliases=_BFPGM_ALIASES,
    ),
    Entry(
        spec=bfpgm("eresfd-bfpgm-30"),
        files=(
            _bfpgm(
                "bf7194781cd74a6601fd11410d159f25815d7f14",
                "EResFD-30-pruned.pth",
                "bfpgm_30.pth",
                "428fe0b4c0a846957f2deb4cf27148d1532d7e0f7c77ed26dddd04cd3346223e",
                612927,
            ),
        ),
        licence=ACADEMIC,
        origin=_BFPGM_ORIGIN,
        aliases=_BFPGM_ALIASES,
        note="filters zeroed, not removed",
    ),
    Entry(
        spec=bfpgm("eresfd-bfpgm-60"),
        files=(
            _bfpgm(
                "f12823a56c8ff0ef2b66f4d801369a835a2041d3",
                "EResFD-60-pruned.pth",
                "bfpgm_60.pth",
                "f5740161b532aa2c6de9ad758660b47ae70ca1dca852242c5f94ba51cc1ce173",
                612927,
            ),
        ),
        licence=ACADEMIC,
        origin=_BFPGM_ORIGIN,
        aliases=_BFPGM_ALIASES,
        note="filters zeroed, not removed",
    ),
)
