"""Rivals: ONNX files that others published, measured and scored as ours are.

A file of ours says how it wants to be fed and read. Theirs does not, so the layout of its outputs
tells what it is, and an adapter knows the rest. A rival is then a ``Pipeline`` like any other: its
pictures are read, its boxes suppressed and its detections scored by the same code and protocol.

yunet        Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence
             Research, 2023: twelve maps; a score is the root of "a face" times "well placed".
ultra-light  Linzaer, "Ultra-Light-Fast-Generic-Face-Detector-1MB", 2019: scores of two classes,
             and boxes as fractions of the one input size.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.anchors import AnchorGrid, AnchorLevel, BoxCodec
from slimface.core.faces import Floats
from slimface.core.spec import Architecture, DetectorSpec, Preprocess
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.pipeline import DecodedFaces, Pipeline
from slimface.deploy.runtimes import SPEC_KEY
from slimface.deploy.runtimes.description import does_not_run, read_model
from slimface.deploy.runtimes.onnxruntime import open_session
from slimface.errors import CheckpointError
from slimface.loading import load_any

_YUNET_STRIDES = (8, 16, 32)
_YUNET_HEADS = ("cls", "obj", "bbox", "kps")

_YUNET = DetectorSpec(
    name="yunet",
    architecture=Architecture(name="yunet"),
    preprocess=Preprocess(colour="bgr", multiple_of=32),
    anchors=AnchorGrid(
        levels=tuple(AnchorLevel(stride=s, sizes=(float(s),)) for s in _YUNET_STRIDES), centre=0
    ),
    codec=BoxCodec(centre_variance=1, size_variance=1),
    landmarks=5,
)

_ULTRA_LIGHT = DetectorSpec(
    name="ultra-light",
    architecture=Architecture(name="ultra-light"),
    preprocess=Preprocess(mean=(127.0, 127.0, 127.0), scale=1 / 128),
    anchors=AnchorGrid(
        levels=(
            AnchorLevel(stride=8, sizes=(10.0, 16.0, 24.0)),
            AnchorLevel(stride=16, sizes=(32.0, 48.0)),
            AnchorLevel(stride=32, sizes=(64.0, 96.0)),
            AnchorLevel(stride=64, sizes=(128.0, 192.0, 256.0)),
        )
    ),
)


def _read_yunet(tensors: Mapping[str, Floats], shape: tuple[int, ...]) -> DecodedFaces:
    face, placed, offsets, points = (
        np.concatenate([tensors[f"{head}_{stride}"] for stride in _YUNET_STRIDES], axis=1)
        for head in _YUNET_HEADS
    )
    anchors = _YUNET.anchors.anchors(*shape[2:])
    landmarks = points.reshape(*points.shape[:2], _YUNET.landmarks, 2)
    return DecodedFaces(
        np.sqrt(face[..., 0] * placed[..., 0]),
        _YUNET.codec.decode(offsets, anchors),
        _YUNET.codec.decode_points(landmarks, anchors),
    )


def _read_ultra_light(tensors: Mapping[str, Floats], shape: tuple[int, ...]) -> DecodedFaces:
    scores = tensors["scores"]
    if scores.ndim != 3 or scores.shape[2] != 2:
        raise CheckpointError(
            f"Its output 'scores' has shape {scores.shape}: no scores of two classes, as "
            "Ultra-Light has.\nMeasure a file of YuNet or Ultra-Light, or one that slimface "
            "exported."
        )
    height, width = shape[2:]
    sides = np.asarray([width, height, width, height], dtype=np.float32)
    return DecodedFaces(np.ascontiguousarray(scores[..., 1]), tensors["boxes"] * sides)


@dataclass(frozen=True, slots=True)
class Rival:
    """How one family of foreign files is fed and read."""

    spec: DetectorSpec
    outputs: tuple[str, ...]
    """Names by which the family is known."""

    read: Callable[[Mapping[str, Floats], tuple[int, ...]], DecodedFaces]
    """Told the outputs by name, and the shape of the input."""


RIVALS = (
    Rival(
        _YUNET,
        tuple(f"{head}_{stride}" for head in _YUNET_HEADS for stride in _YUNET_STRIDES),
        _read_yunet,
    ),
    Rival(_ULTRA_LIGHT, ("scores", "boxes"), _read_ultra_light),
)
"""A new one costs a spec, the names of its outputs and a function that reads them."""


class RivalNetwork:
    """A foreign file run by ONNX Runtime.

    Raises:
        MissingError: There is no such file.
        CheckpointError: It is damaged, or of no family in ``RIVALS``.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Path, content: bytes, threads: int | None) -> None:
        self.path = path
        self._session: Any = open_session(path, content, threads)
        [images, *others] = self._session.get_inputs()
        present = [output.name for output in self._session.get_outputs()]
        self.rival = _family(path, present if not others else [])
        self._input = images.name
        sides = images.shape[2:]
        fixed = len(sides) == 2 and all(isinstance(side, int) for side in sides)
        self.canvas: tuple[int, int] | None = tuple(sides) if fixed else None

    def __call__(self, images: Floats) -> DecodedFaces:
        names = list(self.rival.outputs)
        try:
            tensors = self._session.run(names, {self._input: images})
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise does_not_run(self.path, images.shape, error) from error
        return self.rival.read(dict(zip(names, tensors, strict=True)), images.shape)


def open_contestant(source: str, *, threads: int | None = None) -> Pipeline | ClassPipeline:
    """Open whatever can be measured: what ``load_any`` opens, and files of rivals."""
    path = Path(source)
    if path.suffix.lower() == ".onnx" and SPEC_KEY.encode() not in (content := read_model(path)):
        return open_rival(path, content, threads=threads)
    return load_any(source, threads=threads)


def open_rival(path: Path, content: bytes, *, threads: int | None = None) -> Pipeline:
    """Open a foreign ONNX file.

    Args:
        path: The file.
        content: Its bytes.
        threads: Threads to compute with; None leaves it to the runtime.

    Raises:
        CheckpointError: It is damaged, or of no family in ``RIVALS``.
    """
    network = RivalNetwork(path, content, threads)
    return Pipeline(
        network.rival.spec,
        network,
        name=path.stem,
        runtime=network.runtime,
        identity=hashlib.sha256(content).hexdigest,
        canvas=network.canvas,
    )


def _family(path: Path, outputs: Sequence[str]) -> Rival:
    for rival in RIVALS:
        if set(rival.outputs) == set(outputs):
            return rival
    known = "; ".join(f"{rival.spec.name}: {', '.join(rival.outputs)}" for rival in RIVALS)
    raise CheckpointError(
        f"{path}: its metadata has no '{SPEC_KEY}', so slimface did not export it, and its outputs "
        f"are of no rival that is known ({known}).\n"
        "Export the model with: slimface export MODEL"
    )
