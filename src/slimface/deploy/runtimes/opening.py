"""Open an exported file, whatever runs it.

A runtime is a function ``open(path, content, threads) -> Opened`` in ``RUNTIMES``, found by the
suffix of the file. Its library is imported when a file of that kind is opened, never before.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from slimface.core.spec import CascadeSpec, ClassifierSpec, DetectorSpec, ModelSpec
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.pipeline import Network, Pipeline
from slimface.deploy.runtimes.description import Description, read_model, sidecar_of
from slimface.errors import UsageError


class Described(Network, Protocol):
    """A network that knows how it wants to be fed and read."""

    runtime: str
    """Name of what runs it, for tables: ``onnxruntime``."""

    description: Description


@dataclass(frozen=True, slots=True)
class Opened:
    """A model file, ready to run."""

    spec: ModelSpec
    network: Network
    runtime: str
    canvas: tuple[int, int] | None = None


def _runtime(module: str, name: str) -> Callable[[Path, bytes, int | None], Opened]:
    def opened(path: Path, content: bytes, threads: int | None) -> Opened:
        kind = getattr(import_module(f"slimface.deploy.runtimes.{module}"), name)
        network: Described = kind(path, content=content, threads=threads)
        said = network.description
        return Opened(said.spec, network, network.runtime, said.canvas)

    return opened


RUNTIMES: Mapping[str, Callable[[Path, bytes, int | None], Opened]] = {
    ".onnx": _runtime("onnxruntime", "OnnxNetwork"),
    ".xml": _runtime("openvino", "OpenVinoNetwork"),
    ".param": _runtime("ncnn", "NcnnNetwork"),
    ".pte": _runtime("executorch", "ExecuTorchNetwork"),
    ".tflite": _runtime("litert", "LiteRtNetwork"),
    ".pt": _runtime("torchscript", "TorchScriptNetwork"),
    ".ptl": _runtime("torchscript", "LegacyMobileNetwork"),
}
"""Suffix of an exported file -> how to open it."""

FORMAT_OF: Mapping[str, str] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "executorch": "executorch",
    "litert": "litert",
    "torchscript": "torchscript",
    "torchmobile": "torchmobile",
}
"""Runtime -> the format it reads."""


def open_exported(path: str | Path, *, threads: int | None = None) -> Pipeline:
    """Open an exported file as a detector.

    Raises:
        MissingError, CheckpointError: As the runtime's own class says.
        UsageError: It is a classifier.
    """
    opened = open_any_file(path, threads=threads)
    if isinstance(opened, ClassPipeline):
        raise UsageError(
            f"{path} is a classifier, and a detector is needed here.\n"
            "Classifiers are for: slimface classify, evaluate, benchmark."
        )
    return opened


def open_class_file(path: str | Path, *, threads: int | None = None) -> ClassPipeline:
    """Open an exported file as a classifier.

    Raises:
        MissingError, CheckpointError: As the runtime's own class says.
        UsageError: It is a detector.
    """
    opened = open_any_file(path, threads=threads)
    if not isinstance(opened, ClassPipeline):
        raise UsageError(
            f"{path} is a detector, and a classifier is needed here.\n"
            "Detectors are for: slimface detect, evaluate, benchmark."
        )
    return opened


def open_any_file(path: str | Path, *, threads: int | None = None) -> Pipeline | ClassPipeline:
    """Open an exported file as what it is.

    Raises:
        MissingError, CheckpointError: As the runtime's own class says.
        UsageError: It is one of the nets of a cascade.
    """
    path = Path(path)
    opened, identity = _opened(path, threads)
    spec, network, said = (
        opened.spec,
        opened.network,
        {"name": path.stem, "runtime": opened.runtime},
    )
    if isinstance(spec, ClassifierSpec):
        return ClassPipeline(spec, network, identity=identity, **said)
    if isinstance(spec, CascadeSpec):
        raise UsageError(
            f"{path} is one net of a cascade, {spec.name}, which finds nothing alone.\n"
            f"Name the folder that holds all three: {path.parent}"
        )
    assert isinstance(spec, DetectorSpec)
    return Pipeline(spec, network, identity=identity, canvas=opened.canvas, **said)


def _opened(path: Path, threads: int | None) -> tuple[Opened, Callable[[], str]]:
    """Open a file, and say what gives its SHA-256."""
    content = read_model(path)
    opened = RUNTIMES[path.suffix.lower()](path, content, threads)
    digest = hashlib.sha256(content)
    sidecar = sidecar_of(path)
    if sidecar.is_file():
        # It holds the digests of all files of the model.
        digest.update(sidecar.read_bytes())
    return opened, digest.hexdigest
