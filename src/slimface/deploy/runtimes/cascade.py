"""An exported cascade: a folder of three files and its spec.

spec.json       the rules of the cascade
pnet.onnx       each net, in any format; the three may differ
rnet.onnx
onet.onnx
"""

import hashlib
from pathlib import Path

import numpy as np

from slimface.core.faces import Floats
from slimface.core.spec import CASCADE_NETS, CascadeSpec, read_spec
from slimface.deploy.cascade import Cascade, Networks
from slimface.deploy.pipeline import Network, RawFaces
from slimface.deploy.runtimes.description import MAX_SIDECAR_BYTES, read_model, sidecar_of
from slimface.deploy.runtimes.opening import RUNTIMES, Opened
from slimface.deploy.runtimes.tiles import Tiled
from slimface.errors import CheckpointError, MissingError

SPEC_FILE = "spec.json"


def is_cascade(folder: Path) -> bool:
    """Whether a path is a folder with a spec, as an exported cascade is."""
    return folder.is_dir() and (folder / SPEC_FILE).is_file()


def open_cascade(folder: Path, *, threads: int | None = None) -> Cascade:
    """Open an exported cascade.

    Raises:
        MissingError: A net, or a package that runs it, is not there.
        CheckpointError: A file is damaged, there are two of one net, a net belongs to another
            cascade, or the first one takes one size of picture that no pyramid can be cut into.
    """
    with (folder / SPEC_FILE).open("rb") as file:
        text = file.read(MAX_SIDECAR_BYTES)
    spec = read_spec(text, where=str(folder / SPEC_FILE))
    if not isinstance(spec, CascadeSpec):
        raise CheckpointError(
            f"{folder / SPEC_FILE} is the spec of {spec.name}, which is no cascade.\n"
            "Name the model file in the folder, not the folder."
        )
    digest = hashlib.sha256(text)
    nets: list[Network] = []
    runtimes: list[str] = []
    for name in CASCADE_NETS:
        path = _file_of(folder, name)
        content = read_model(path)
        opened = RUNTIMES[path.suffix](path, content, threads)
        _check(opened, spec, name, path)
        nets.append(_of_any(opened, spec, is_first=name == CASCADE_NETS[0]))
        runtimes.append(opened.runtime)
        digest.update(hashlib.sha256(content).digest())
        if sidecar_of(path).is_file():
            digest.update(sidecar_of(path).read_bytes())
    return Cascade(
        spec,
        Networks(*nets),
        name=folder.name,
        runtime="+".join(dict.fromkeys(runtimes)),
        identity=digest.hexdigest,
    )


def _of_any(opened: Opened, spec: CascadeSpec, *, is_first: bool) -> Network:
    """A net that takes what the cascade gives it, whatever its file takes."""
    if opened.canvas is None:
        return opened.network
    return Tiled(opened.network, opened.canvas, spec) if is_first else OneByOne(opened.network)


class OneByOne:
    """A network whose runtime takes one crop a call, given many."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __call__(self, images: Floats) -> RawFaces:
        answers = [self.network(np.ascontiguousarray(image[None])) for image in images]
        raw = [answer for answer in answers if isinstance(answer, RawFaces)]
        points = [answer.landmarks for answer in raw if answer.landmarks is not None]
        return RawFaces(
            np.concatenate([answer.logits for answer in raw]),
            np.concatenate([answer.offsets for answer in raw]),
            np.concatenate(points) if points else None,
        )


def _file_of(folder: Path, net: str) -> Path:
    # pnnx names its files after ncnn, too: pnet.ncnn.param.
    found = [folder / f"{net}{suffix}" for suffix in (*RUNTIMES, ".ncnn.param")]
    found = [path for path in found if path.is_file()]
    if not found:
        raise MissingError(
            f"{folder} has no {net}: none of {', '.join(f'{net}{suffix}' for suffix in RUNTIMES)} "
            "is there.\nCopy the whole folder, or export the cascade again."
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} has {len(found)} files of {net}: {', '.join(path.name for path in found)}.\n"
            "It is unclear which one is meant; leave one of them there."
        )
    return found[0]


def _check(opened: Opened, spec: CascadeSpec, net: str, path: Path) -> None:
    if opened.spec != spec.of_net(net):
        raise CheckpointError(
            f"{path} is {opened.spec.name} with rules of its own, and not the {net} of {spec.name}"
            f" in {SPEC_FILE}.\nExport the whole cascade again; "
            "MODEL,NET=FILE replaces a net before that."
        )
