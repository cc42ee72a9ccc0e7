"""Networks in exported files, each behind the same small protocol.

A runtime is a function ``open(path, threads) -> Opened`` in ``RUNTIMES``, found by the suffix of
the file. Its library is imported when a file of that kind is opened, never before.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimface.core.faces import Floats
from slimface.core.spec import DetectorSpec, read_spec
from slimface.deploy.pipeline import DecodedFaces, Network, Pipeline, RawFaces
from slimface.errors import CheckpointError, MissingError

SPEC_KEY = "slimface.spec"
"""Where an exported file keeps its spec as JSON."""

PROVENANCE_KEY = "slimface.provenance"
"""Where it says as JSON what it was made from, how, and what it costs."""

OUTPUTS_KEY = "slimface.outputs"
"""``raw``: logits, offsets (, landmarks); ``decoded``: scores, boxes (, landmarks)."""

RAW_NAMES = ("logits", "offsets")
DECODED_NAMES = ("scores", "boxes")
LANDMARKS_NAME = "landmarks"

MAX_MODEL_BYTES = 2**30
"""Larger model files are refused: no detector for devices is near it."""

# The key of a tensor stored elsewhere, in every spelling that protocol buffers allow.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")


@dataclass(frozen=True, slots=True)
class Opened:
    """A model file, ready to run."""

    spec: DetectorSpec
    network: Network
    runtime: str
    """Name of the runtime, for tables: ``onnxruntime``."""


class OnnxNetwork:
    """A network run by ONNX Runtime on the processor.

    Raises:
        MissingError: There is no such file, or onnxruntime is not installed.
        CheckpointError: The file is damaged, too large, keeps tensors outside of itself, or was
            not exported by slimface.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: str | Path, *, threads: int | None = None, content: bytes | None = None
    ) -> None:
        """Open a model.

        Args:
            path: The ``.onnx`` file.
            threads: Threads within an operator; None leaves it to the runtime.
            content: The bytes of the file where they were read already.
        """
        self.path = Path(path)
        self._session = _open_session(self.path, content or read_model(self.path), threads)
        meta = self._session.get_modelmeta().custom_metadata_map
        self.metadata: Mapping[str, str] = meta
        self.spec = _spec_of(meta, self.path)
        self.is_decoded, self._names = _outputs_of(self._session, meta, self.path)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Floats) -> RawFaces | DecodedFaces:
        try:
            first, second, *points = self._session.run(self._names, {self._input: images})
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise CheckpointError(
                f"{self.path}: the network does not run on an input of shape {images.shape}: "
                f"{_first_line(error)}\n"
                "Was it exported for one fixed size? Export it with dynamic height and width."
            ) from error
        landmarks = points[0] if points else None
        if self.is_decoded:
            return DecodedFaces(first, second, landmarks)
        return RawFaces(first, second, landmarks)


def _open_session(path: Path, content: bytes, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingError(
            f"{path} needs the package onnxruntime, which is not installed.\n"
            "Install it with: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if _EXTERNAL.search(content):
        raise CheckpointError(
            f"{path}: the model keeps tensors in other files, which is refused: a path inside of "
            "a model is not to be trusted.\nStore it as one file, or export it again."
        )
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot read it: {_first_line(error)}\n"
            "The file is damaged, cut off or no ONNX model; copy or export it again."
        ) from None


def _spec_of(meta: Mapping[str, str], path: Path) -> DetectorSpec:
    if SPEC_KEY not in meta:
        raise CheckpointError(
            f"{path}: its metadata has no '{SPEC_KEY}', so nothing says how to feed and read it.\n"
            "Export the model with: slimface export MODEL --format onnx"
        )
    return read_spec(meta[SPEC_KEY], where=str(path))


def _outputs_of(session: Any, meta: Mapping[str, str], path: Path) -> tuple[bool, list[str]]:
    """Whether the graph decodes, and the names of its outputs in our order."""
    kind = meta.get(OUTPUTS_KEY, "raw")
    if kind not in ("raw", "decoded"):
        raise CheckpointError(
            f"{path}: '{OUTPUTS_KEY}' is '{kind}'; this slimface knows 'raw' and 'decoded'.\n"
            "Update slimface, or export the model again."
        )
    names = list(DECODED_NAMES if kind == "decoded" else RAW_NAMES)
    present = [output.name for output in session.get_outputs()]
    if LANDMARKS_NAME in present:
        names.append(LANDMARKS_NAME)
    absent = [name for name in names if name not in present]
    if absent or len(session.get_inputs()) != 1:
        raise CheckpointError(
            f"{path}: a network with {kind} outputs has one input and the outputs "
            f"{', '.join(names)}; this one has {len(session.get_inputs())} and "
            f"{', '.join(present)}.\nExport the model again."
        )
    return kind == "decoded", names


def read_model(path: Path) -> bytes:
    """Return the bytes of a model file.

    Raises:
        MissingError: There is no such file.
        CheckpointError: It is empty or too large.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise MissingError(f"there is no model file {path}.\nCheck the path.") from None
    if not 0 < size <= MAX_MODEL_BYTES:
        raise CheckpointError(
            f"{path}: {size:,} bytes; a model has at least one and at most {MAX_MODEL_BYTES:,}.\n"
            "Copy or export it again."
        )
    return path.read_bytes()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _open_onnx(path: Path, content: bytes, threads: int | None) -> Opened:
    network = OnnxNetwork(path, threads=threads, content=content)
    return Opened(network.spec, network, network.runtime)


RUNTIMES: Mapping[str, Callable[[Path, bytes, int | None], Opened]] = {".onnx": _open_onnx}
"""Suffix of an exported file -> how to open it."""


def open_exported(path: str | Path, *, threads: int | None = None) -> Pipeline:
    """Open an exported file as a detector.

    Raises:
        MissingError, CheckpointError: As the runtime's own class says.
    """
    path = Path(path)
    content = read_model(path)
    opened = RUNTIMES[path.suffix.lower()](path, content, threads)
    digest = hashlib.sha256(content).hexdigest()
    return Pipeline(
        opened.spec,
        opened.network,
        name=path.stem,
        runtime=opened.runtime,
        identity=lambda: digest,
    )
