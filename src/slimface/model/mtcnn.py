"""MTCNN: three small nets in a row, the first on a pyramid of the picture, the others on crops.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016, arXiv:1604.02878. Reads the weights of facenet-pytorch and of
xuexingyu24/Pruning_MTCNN_MobileFaceNet_Using_Pytorch and its descendants, whose flattened maps
have other orders: ours is that of torch, channel by channel, row by row. A face has one logit
(face minus background: the same score, since a softmax over two is the sigmoid of their
difference).

Options of the architecture:
    ceil: Whether pooling rounds up, as in the original and in facenet-pytorch, or down.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from slimface.core.spec import (
    CASCADE_NETS,
    Architecture,
    CascadeSpec,
    DetectorSpec,
    Postprocess,
    Preprocess,
)
from slimface.errors import CheckpointError, RecipeError, UsageError
from slimface.model.detector import Detector, RawTensors
from slimface.model.published import Archive, Entry, WeightFile

LANDMARKS = 5
NETS = CASCADE_NETS


class Stage(Detector):
    """One net of the cascade: crops in, one prediction a crop; the first, one a cell."""

    side_px = 0
    """Height and width of a crop."""

    spec: CascadeSpec

    def __init__(self, spec: DetectorSpec, widths: tuple[int, ...], kernels: tuple[int, ...]):
        super().__init__(spec)
        self.trace_size = (self.side_px, self.side_px)
        self.ceil = _ceil(spec)
        for i, (before, width, kernel) in enumerate(
            zip((3, *widths), widths, kernels, strict=False), start=1
        ):
            self.add_module(f"conv{i}", nn.Conv2d(before, width, kernel))
            self.add_module(f"prelu{i}", nn.PReLU(width))

    @property
    def net(self) -> str:
        """Its name in a cascade, one of ``NETS``."""
        return self.spec.architecture.name.rpartition(".")[2]

    def block(self, i: int, x: Tensor) -> Tensor:
        """Run the ``i``-th convolution and its activation."""
        x = self.get_submodule(f"conv{i}")(x)
        return self.get_submodule(f"prelu{i}")(x)  # type: ignore[no-any-return]

    def pool(self, x: Tensor, size: int) -> Tensor:
        """Keep the largest of each window, at stride 2."""
        return functional.max_pool2d(x, size, 2, ceil_mode=self.ceil)

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """Cells run row by row; landmarks come as five x, then five y."""
        scores, offsets, *points = (each.flatten(2) if each.ndim > 2 else each for each in maps)
        if scores.ndim == 2:
            scores, offsets = scores[..., None], offsets[..., None]
        landmarks = points[0].reshape(-1, 1, 2, LANDMARKS).transpose(2, 3) if points else None
        return RawTensors(scores[:, 1] - scores[:, 0], offsets.transpose(1, 2), landmarks)


class PNet(Stage):
    """Proposes: fully convolutional, a cell of 12x12 pixels every 2."""

    head_names = ("scores", "offsets")
    side_px = 12

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec, (10, 16, 32), (3, 3, 3))
        self.scores = nn.Conv2d(32, 2, 1)
        self.offsets = nn.Conv2d(32, 4, 1)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of classes and offsets."""
        x = self.pool(self.block(1, images), 2)
        x = self.block(3, self.block(2, x))
        return self.scores(x), self.offsets(x)


class RNet(Stage):
    """Refines: crops of 24x24 pixels."""

    head_names = ("scores", "offsets")
    side_px = 24
    input_size = (24, 24)

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec, (28, 48, 64), (3, 3, 2))
        self.dense = nn.Linear(64 * (9 if self.ceil else 4), 128)
        self.dense_prelu = nn.PReLU(128)
        self.scores = nn.Linear(128, 2)
        self.offsets = nn.Linear(128, 4)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return classes and offsets of each crop."""
        x = self.pool(self.block(1, images), 3)
        x = self.block(3, self.pool(self.block(2, x), 3))
        x = self.dense_prelu(self.dense(x.flatten(1)))
        return self.scores(x), self.offsets(x)


class ONet(Stage):
    """Decides, and finds the landmarks: crops of 48x48 pixels."""

    head_names = ("scores", "offsets", "landmarks")
    side_px = 48
    input_size = (48, 48)

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec, (32, 64, 64, 128), (3, 3, 3, 2))
        self.dense = nn.Linear(128 * (9 if self.ceil else 4), 256)
        self.dense_prelu = nn.PReLU(256)
        self.scores = nn.Linear(256, 2)
        self.offsets = nn.Linear(256, 4)
        self.landmarks = nn.Linear(256, 2 * LANDMARKS)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return classes, offsets and landmarks of each crop."""
        x = self.pool(self.block(1, images), 3)
        x = self.pool(self.block(2, x), 3)
        x = self.block(4, self.pool(self.block(3, x), 2))
        x = self.dense_prelu(self.dense(x.flatten(1)))
        return self.scores(x), self.offsets(x), self.landmarks(x)


class MTCNN(Detector):
    """The three nets as one module, to be stored, counted and pruned together.

    Each net is a detector of its crops. Faces of pictures are found by ``deploy.cascade``.
    """

    head_names = tuple(
        f"{name}.{head}"
        for name, net in zip(NETS, (PNet, RNet, ONet), strict=True)
        for head in net.head_names
    )

    spec: CascadeSpec

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        if not isinstance(spec, CascadeSpec):
            raise RecipeError(
                f"The spec of {spec.name} is one of a single net; mtcnn is a cascade.\n"
                "Write task: cascade, or start from slimface.model.mtcnn.facenet()."
            )
        self.pnet = PNet(spec.of_net("pnet"))
        self.rnet = RNet(spec.of_net("rnet"))
        self.onet = ONet(spec.of_net("onet"))

    @classmethod
    def translate(cls, tensors: Mapping[str, Tensor], *, where: str) -> Mapping[str, Tensor]:
        """Read the published names and orders of columns; see ``Detector.translate``."""
        translated: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            net, _, rest = name.partition(".")
            if net not in NETS:
                raise CheckpointError(
                    f"{where}: {name} belongs to none of the nets {', '.join(NETS)}.\nSay whose "
                    "file is which: import_weights({'pnet.': ..., 'rnet.': ..., 'onet.': ...})."
                )
            layer, _, kind = rest.rpartition(".")
            ours = _NAMES[net].get(layer, layer)
            if ours == "dense" and kind == "weight":
                channels = _last_channels(tensors, net)
                tensor = _reordered(tensor, layer, channels, where=f"{where}, {name}")
            translated[f"{net}.{ours}.{kind}"] = tensor
        return translated

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the first net on the pyramid of the pictures, and each other on one crop of them.

        This is what is counted and traced: how many crops there are depends on the picture.
        """
        found: list[Tensor] = []
        for _, rows, columns in self.spec.levels(*images.shape[-2:]):
            found += self.pnet.maps(_resized(images, rows, columns))
        for net in (self.rnet, self.onet):
            found += net.maps(_resized(images, net.side_px, net.side_px))
        return tuple(found)

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """Refuse: what one net finds decides what the next one sees.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{self.spec.name} is a cascade of three nets and has no predictions in one pass.\n"
            "Find faces with slimface.load(...).detect; its pnet, rnet and onet are detectors of "
            "their own."
        )


def _resized(images: Tensor, rows: int, columns: int) -> Tensor:
    return functional.interpolate(images, size=(rows, columns), mode="nearest")


def _ceil(spec: DetectorSpec) -> bool:
    options = {"ceil": True, **spec.architecture.options}
    ceil = options.pop("ceil")
    if options or not isinstance(ceil, bool):
        wrong = ", ".join(sorted(options)) or f"ceil: {ceil!r}"
        raise RecipeError(f"MTCNN has no option {wrong}.\nIts only option is ceil: true or false.")
    return ceil


def _positions(convolutions: Mapping[int, int], dense: tuple[int, ...] = ()) -> dict[str, str]:
    """Names of layers that pruning left with numbers, ``features.0`` and so on."""
    names: dict[str, str] = {}
    for position, i in convolutions.items():
        names |= {f"features.{position}": f"conv{i}", f"features.{position + 1}": f"prelu{i}"}
    for k, position in enumerate(dense):
        names[f"features.{position}"] = "dense_prelu" if k else "dense"
    return names


def _blocks(count: int) -> dict[str, str]:
    names = [f"{kind}{i}" for kind in ("conv", "prelu") for i in range(1, count + 1)]
    return {f"features.{name}": name for name in names}


# The name of the first dense layer is another in each spelling, so it tells the order of columns.
_NAMES: Mapping[str, Mapping[str, str]] = {
    "pnet": {
        **_blocks(3),
        **_positions({0: 1, 3: 2, 5: 3}),
        "conv4_1": "scores",
        "conv4_2": "offsets",
    },
    "rnet": {
        **_blocks(3),
        **_positions({0: 1, 3: 2, 6: 3}, (9, 10)),
        "features.conv4": "dense",
        "features.prelu4": "dense_prelu",
        "dense4": "dense",
        "prelu4": "dense_prelu",
        "conv5_1": "scores",
        "conv5_2": "offsets",
        "dense5_1": "scores",
        "dense5_2": "offsets",
    },
    "onet": {
        **_blocks(4),
        # With a dropout between them, and without.
        **_positions({0: 1, 3: 2, 6: 3, 9: 4}, (12, 14, 13)),
        "features.conv5": "dense",
        "features.prelu5": "dense_prelu",
        "dense5": "dense",
        "prelu5": "dense_prelu",
        "conv6_1": "scores",
        "conv6_2": "offsets",
        "conv6_3": "landmarks",
        "dense6_1": "scores",
        "dense6_2": "offsets",
        "dense6_3": "landmarks",
    },
}


def _last_channels(tensors: Mapping[str, Tensor], net: str) -> int:
    """Channels of the last convolution, in whatever spelling."""
    last = {"rnet": "conv3", "onet": "conv4"}[net]
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        layer, _, kind = rest.rpartition(".")
        if prefix == net and kind == "bias" and _NAMES[net].get(layer, layer) == last:
            return len(tensor)
    return 0


def _reordered(weight: Tensor, layer: str, channels: int, *, where: str) -> Tensor:
    """Bring the columns of the first dense layer to the order channel, row, column."""
    side = round((weight.shape[1] / channels) ** 0.5) if channels else 0
    if weight.ndim != 2 or weight.shape[1] != channels * side * side:
        raise CheckpointError(
            f"{where} has shape {tuple(weight.shape)}, which is no square map of the {channels} "
            "channels before it.\nThe file was put together from several models; fetch it again."
        )
    if layer == "dense":
        return weight
    if layer.startswith("features."):
        maps = weight.view(-1, channels, side, side).transpose(2, 3)
    else:
        maps = weight.view(-1, side, side, channels).permute(0, 3, 2, 1)
    return maps.reshape(len(weight), -1).contiguous()


def facenet(name: str = "mtcnn") -> CascadeSpec:
    """The nets and rules of facenet-pytorch: pools that round up, crops cut at the border."""
    return CascadeSpec(
        name=name,
        architecture=Architecture(name="mtcnn", options={"ceil": True}),
        preprocess=Preprocess(mean=(127.5, 127.5, 127.5), scale=1 / 128),
        postprocess=Postprocess(score_floor=0.7, nms_overlap=0.7, pre_nms=20_000, cap=5000),
        landmarks=LANDMARKS,
    )


def floor(name: str = "mtcnn-floor") -> CascadeSpec:
    """The nets and rules of the smaller variant: pools that round down, crops padded in black."""
    return CascadeSpec(
        name=name,
        architecture=Architecture(name="mtcnn", options={"ceil": False}),
        preprocess=Preprocess(mean=(127.5, 127.5, 127.5), scale=1 / 127.5),
        postprocess=Postprocess(score_floor=0.7, nms_overlap=0.7, pre_nms=20_000, cap=5000),
        landmarks=LANDMARKS,
        min_face_px=12,
        resize="linear",
        level_pixel=0,
        cells="round",
        crop="pad",
        inclusive=True,
        offset_pixels=(1, 1, 1),
        square_last=True,
    )


def _facenet(net: str, sha256: str, size: int) -> WeightFile:
    return WeightFile(
        path=f"mtcnn/{net}.pt",
        url="https://files.pythonhosted.org/packages/ed/2e/"
        "2d56386bc2f834cdc683743903852cf1428b4e5ee119f16cf808b589d3cd/"
        "facenet_pytorch-2.6.0-py3-none-any.whl",
        sha256=sha256,
        size=size,
        prefix=f"{net}.",
        archive=Archive(
            member=f"facenet_pytorch/data/{net}.pt",
            sha256="ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
            size=1881930,
        ),
    )


ENTRIES = (
    Entry(
        spec=facenet("mtcnn"),
        files=(
            _facenet(
                "pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", 28570
            ),
            _facenet(
                "rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", 403147
            ),
            _facenet(
                "onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", 1559269
            ),
        ),
        licence="MIT",
        origin="timesler/facenet-pytorch",
        note="cascade of three nets; MACs of the pyramid at 20 px faces, and of one crop each",
    ),
)


def untrained(name: str) -> Entry | None:
    """Return the cascade whose pools round down, which is to be trained, by its name."""
    if name != "mtcnn-floor":
        return None
    return Entry(spec=floor(name), files=(), licence="", origin="")
