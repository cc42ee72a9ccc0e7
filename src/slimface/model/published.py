"""Published: the table of models that others have trained. One entry adds a model to the zoo."""

from collections.abc import Mapping

from slimface.core.spec import DetectorSpec
from slimface.core.value import Value
from slimface.model import eresfd, extd, mtcnn, retinaface, yunet
from slimface.model.backbones.backbone import PUBLISHED
from slimface.model.checkpoint import Provenance

ACADEMIC = "academic, non-commercial"


class Archive(Value):
    """A published zip file, or wheel, with a weight file in it."""

    member: str
    """Path of the weight file inside."""

    sha256: str
    size: int
    """Bytes."""


class WeightFile(Value):
    """A published file."""

    path: str
    """Where it stands below a folder of weights."""

    url: str
    sha256: str
    size: int
    """Bytes."""

    prefix: str = ""
    """Goes in front of the file's keys, for files that hold a part of the model."""

    archive: Archive | None = None
    """What ``url`` leads to, if the file is only published inside of something else."""


class Entry(Value):
    """A published model."""

    spec: DetectorSpec
    files: tuple[WeightFile, ...]
    licence: str
    origin: str
    note: str = ""
    aliases: Mapping[str, str] = {}
    """Prefixes of second names in the files -> prefixes of the names that stay."""

    renames: Mapping[str, str] = {}
    """Prefixes in some variants of the files -> prefixes of the module's names."""

    @property
    def name(self) -> str:
        """What the model is called on the command line."""
        return self.spec.name

    @property
    def restricted(self) -> bool:
        """Whether its terms forbid use in a product."""
        return self.licence == ACADEMIC

    @property
    def provenance(self) -> Provenance:
        """Where models made from it come from; its terms bind them."""
        return Provenance(origin=self.origin, licence=self.licence)


def _github(
    repository: str, commit: str, path: str, *, local: str, sha256: str, size: int, prefix: str = ""
) -> WeightFile:
    quoted = path.replace(" ", "%20")
    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{quoted}"
    return WeightFile(path=local, url=url, sha256=sha256, size=size, prefix=prefix)


def _naver(part: str, sha256: str, size: int) -> WeightFile:
    name = f"eresfd_16.pth.{part}.pth"
    return _github(
        "clovaai/EResFD",
        "69c24b2814c901c84c74758feec5d3cd59c27f71",
        f"weights/{name}",
        local=f"eresfd/{name}",
        sha256=sha256,
        size=size,
        prefix=f"{part}.",
    )


def _lfdp(commit: str, path: str, local: str, sha256: str, size: int) -> WeightFile:
    repository = "IDT-ITI/Lightweight-Face-Detector-Pruning"
    return _github(repository, commit, path, local=local, sha256=sha256, size=size)


def _bfpgm(commit: str, path: str, local: str, sha256: str, size: int) -> WeightFile:
    path, local = f"Pruned Models/{path}", f"eresfd/{local}"
    return _github("IDT-ITI/B-FPGM", commit, path, local=local, sha256=sha256, size=size)


def _extd(width: int, sha256: str, size: int) -> Entry:
    file = _github(
        "clovaai/EXTD_Pytorch",
        "c5ea3a8fec816002d0f39d2664393ed21fa7d0f0",
        f"weights/EXTD_{width}.pth",
        local=f"extd/EXTD_{width}.pth",
        sha256=sha256,
        size=size,
    )
    spec = extd.extd(f"extd-{width}", width=width)
    return Entry(spec=spec, files=(file,), licence="MIT", origin="clovaai/EXTD_Pytorch")


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


_LFDP_ORIGIN = "IDT-ITI/Lightweight-Face-Detector-Pruning"
_BFPGM_ORIGIN = "IDT-ITI/B-FPGM"
_BFPGM_ALIASES = {
    **{f"base.m0.layer{i}.": f"base.m0.b2_{i}." for i in range(1, 6)},
    "base.m0.layer6.": "base.m0.fpn.",
    **{f"base.m0.layer{i + 7}.": f"base.m0.FEM_{i}." for i in range(6)},
    **{f"{head}{i}.": f"{head}.{i}." for head in ("loc", "conf") for i in range(6)},
}

_RETINAFACE_RENAMES = {"FPN.": "fpn."}

ENTRIES = (
    Entry(
        spec=eresfd.naver("eresfd"),
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
        spec=eresfd.lfdp("eresfd-lfdp"),
        files=(
            _lfdp(
                "4dffb31a68b2d2542654f56869c62c47f3c36a69",
                "EResFD-main/weights/ERES.pth",
                "eresfd/lfdp_ERES.pth",
                "092c420b765db450fb9de58944875bfc41624f69136d40e28e072c1a0e6e729b",
                522548,
            ),
        ),
        licence=ACADEMIC,
        origin=_LFDP_ORIGIN,
    ),
    Entry(
        spec=eresfd.lfdp("eresfd-lfdp-fpgm50"),
        files=(
            _lfdp(
                "2698e4ce17a9a20c6cac1d144fff9f62804deb67",
                "Pruned Models/ERESFD/FPGM/ERES50_FPGM.pth",
                "eresfd/lfdp_fpgm50.pth",
                "e70e9f999f4a1719b85777b1924dcb473f8003d3483406d79642546e2cd1a177",
                542876,
            ),
        ),
        licence=ACADEMIC,
        origin=_LFDP_ORIGIN,
        note="filters zeroed, not removed",
    ),
    Entry(
        spec=eresfd.bfpgm("eresfd-bfpgm"),
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
        spec=eresfd.bfpgm("eresfd-bfpgm-30"),
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
        spec=eresfd.bfpgm("eresfd-bfpgm-60"),
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
    _extd(32, "36a0e68ae5dda995b5efe9ab457ee0c5276ae09a8e93e3a25d20aeae2582d446", 301897),
    _extd(48, "3f05368c0d39a55c637b2fa7ef06a8626efb11f9cba1c3da057c5dd4f32982e3", 443717),
    _extd(64, "34f9b1eea0b9d477c8409ea236562662c29062553d6fd84a594530b087baefe2", 696881),
    Entry(
        spec=extd.extd("extd-64-lfdp-fpgm50"),
        files=(
            _lfdp(
                "f797ab4dcc2522d10b6efc96f57468c65cf8ec65",
                "Pruned_Models/EXTD/FPGM/EXTD50_FPGM.pth",
                "extd/lfdp_fpgm50.pth",
                "8aa56029f9a0b552692bb439e7792b85a46de1becca95a5a8b3ff5a8827be502",
                722013,
            ),
        ),
        licence=ACADEMIC,
        origin=_LFDP_ORIGIN,
        note="filters zeroed, not removed",
    ),
    Entry(
        spec=retinaface.retinaface("retinaface-mobilenet025"),
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
        renames=_RETINAFACE_RENAMES,
    ),
    Entry(
        spec=retinaface.retinaface(
            "retinaface-mobilenet025-1mb", sizes=((10, 20), (32, 64), (128, 256))
        ),
        files=(
            _github(
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
    Entry(
        spec=yunet.yunet("yunet-n"),
        files=(
            _github(
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
    Entry(
        spec=mtcnn.facenet("mtcnn"),
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
    """Return a model without published weights, to be trained.

    Args:
        name: ``mtcnn-floor``, the cascade whose pools round down; ``retinaface:`` and a published
            backbone or one of timm's; ``retinaface-`` does as well before the published ones.

    Returns:
        The entry, without files; None if no model is called that.
    """
    if name == "mtcnn-floor":
        return Entry(spec=mtcnn.floor(name), files=(), licence="", origin="")
    family, colon, backbone = name.partition(":")
    if not colon:
        family, _, backbone = name.partition("-")
    if family != "retinaface" or not backbone or (not colon and backbone not in PUBLISHED):
        return None
    spec = retinaface.retinaface(f"retinaface-{backbone}", backbone=backbone)
    return Entry(spec=spec, files=(), licence="", origin="", renames=_RETINAFACE_RENAMES)
