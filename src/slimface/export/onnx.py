"""ONNX: one file with the network, its spec, and dynamic batch, height and width.

Two exporters come with torch. The one that traces TorchScript is the default: for EResFD it takes
0.7 s where the newer one (torch.export) takes 20 s, and the two graphs run equally fast
(``docs/ledger.md``). torch announces that it will be removed; ``exporter="dynamo"`` is its
successor and passes the same tests.
"""

import copy
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

import slimface
from slimface.core.spec import DetectorSpec
from slimface.core.value import Value
from slimface.deploy.runtimes import (
    DECODED_NAMES,
    LANDMARKS_NAME,
    OUTPUTS_KEY,
    PROVENANCE_KEY,
    RAW_NAMES,
    SPEC_KEY,
)
from slimface.errors import MissingError, ParityError
from slimface.model.detector import Detector
from slimface.model.profile import profile

log = logging.getLogger(__name__)

OLDEST_OPSET = 17
NEWEST_OPSET = 20
"""What both exporters can write and every ONNX Runtime we support can read."""

_OTHER_SIZE = (333, 517)
"""An odd size, divisible by no stride: where rounding of map sizes goes wrong first."""


class Onnx(Value):
    """Write a detector as ONNX: one file, its spec and where it comes from in the metadata."""

    kind: Literal["onnx"] = "onnx"

    decode: bool = False
    """Put scores and boxes in input pixels out, instead of logits and offsets."""

    opset: int = Field(default=18, ge=OLDEST_OPSET, le=NEWEST_OPSET)
    """Version of the operator set."""

    dynamic: bool = True
    """Accept any batch, height and width; otherwise one picture, ``height`` x ``width``."""

    height: int = Field(default=480, gt=0)
    width: int = Field(default=640, gt=0)
    exporter: Literal["torchscript", "dynamo"] = "torchscript"

    suffix: ClassVar[str] = ".onnx"
    precision: ClassVar[str] = "float32"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``path``; the caller sees to it that nothing half-written stays.

        Raises:
            MissingError: onnx or onnxslim is not installed.
            ParityError: The graph has another opset than asked for, or gives other numbers than
                the detector, at this size or (if dynamic) at another.
        """
        onnx, onnxslim = _libraries()
        graph = _Graph(copy.deepcopy(detector).cpu(), decode=self.decode).eval()
        model = onnx.load_from_string(self._trace(graph, path))
        model = onnxslim.slim(model)
        _shorten(model)
        self._describe(onnx, model, graph.detector, provenance or {})
        onnx.checker.check_model(model, full_check=True)
        self._check_opset(model)
        content = model.SerializeToString()
        path.write_bytes(content)
        self._compare(graph, content, path)

    def _trace(self, graph: "_Graph", path: Path) -> bytes:
        """Return the ONNX file one of torch's exporters makes; it may use ``path`` meanwhile."""
        height, width = _padded(graph.detector.spec, self.height, self.width)
        images = torch.zeros(2 if self.dynamic else 1, 3, height, width)
        options: dict[str, Any] = {
            "input_names": ["images"],
            "output_names": list(graph.output_names),
            "opset_version": self.opset,
        }
        with warnings.catch_warnings(), torch.no_grad():
            # Deprecation of the exporter, and tracer warnings; _compare would find what they fear.
            warnings.simplefilter("ignore")
            if self.exporter == "dynamo":
                program = torch.onnx.export(
                    graph,
                    (images,),
                    dynamo=True,
                    verbose=False,
                    dynamic_shapes=({0: _ANY, 2: _ANY, 3: _ANY},) if self.dynamic else None,
                    **options,
                )
                assert program is not None
                content: bytes = program.model_proto.SerializeToString()
                return content
            axes = {"images": {0: "batch", 2: "height", 3: "width"}}
            axes |= {name: {0: "batch", 1: "anchors"} for name in graph.output_names}
            torch.onnx.export(
                graph,
                (images,),
                path,
                dynamo=False,
                dynamic_axes=axes if self.dynamic else None,
                **options,
            )
        return path.read_bytes()

    def _describe(
        self, onnx: Any, model: Any, detector: Detector, provenance: Mapping[str, Any]
    ) -> None:
        """Put the spec and where the file comes from into its metadata."""
        model.producer_name, model.producer_version = "slimface", slimface.__version__
        model.doc_string = f"{detector.spec.name}: face detector"
        cost = profile(detector, self.height, self.width)
        entries = {
            SPEC_KEY: detector.spec.model_dump_json(),
            OUTPUTS_KEY: "decoded" if self.decode else "raw",
            PROVENANCE_KEY: json.dumps(
                {
                    **provenance,
                    "slimface": slimface.__version__,
                    "torch": torch.__version__,
                    "onnx": onnx.__version__,
                    "export": self.model_dump(mode="json"),
                    "cost": {
                        "parameters": cost.parameters,
                        "macs": cost.macs,
                        "height": self.height,
                        "width": self.width,
                    },
                },
                sort_keys=True,
            ),
        }
        onnx.helper.set_model_props(model, entries)

    def _check_opset(self, model: Any) -> None:
        """Exporters have been seen to fall back to another version without a word."""
        found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        if found != {"ai.onnx": self.opset}:
            raise ParityError(
                f"Opset {self.opset} was asked for and the {self.exporter} exporter of torch "
                f"{torch.__version__} wrote {found}.\n"
                "Ask for --opset 18, which both exporters write."
            )

    def _compare(self, graph: "_Graph", content: bytes, path: Path) -> None:
        """Run the file and the detector on the same noise, at one size and at an odd one."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        spec = graph.detector.spec
        shapes = [(1, *_padded(spec, self.height, self.width))]
        if self.dynamic:
            shapes.append((2, *_padded(spec, *_OTHER_SIZE)))
        generator = torch.Generator().manual_seed(0)
        for batch, height, width in shapes:
            images = 255 * torch.rand(batch, 3, height, width, generator=generator)
            with torch.no_grad():
                wanted = graph(graph.detector.prepare(images))
            feed = {"images": graph.detector.prepare(images).numpy()}
            try:
                given = session.run(None, feed)
            except Exception as error:  # onnxruntime raises classes of its own, all Exceptions
                raise ParityError(
                    f"{path.name} does not run on {batch} x 3 x {height} x {width}: {error}\n"
                    "An operation of the model fixes its size; --fixed exports one size only."
                ) from error
            for name, ours, theirs in zip(graph.output_names, wanted, given, strict=True):
                _compare_tensors(name, ours.numpy(), theirs, where=f"{height}x{width}")


_ANY = torch.export.Dim.DYNAMIC


class _Graph(nn.Module):
    """What the file computes."""

    def __init__(self, detector: Detector, *, decode: bool) -> None:
        super().__init__()
        self.detector = detector
        self.decode = decode
        points = (LANDMARKS_NAME,) if detector.spec.landmarks else ()
        self.output_names = (*(DECODED_NAMES if decode else RAW_NAMES), *points)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.detector(images)
        if not self.decode:
            return tuple(tensor for tensor in raw if tensor is not None)
        spec = self.detector.spec
        anchors = spec.anchors.anchors_in(torch, images.shape[2], images.shape[3])
        decoded = [raw.logits.sigmoid(), spec.codec.decode(raw.offsets, anchors)]
        if raw.landmarks is not None:
            decoded.append(spec.codec.decode_points(raw.landmarks, anchors))
        return tuple(decoded)


def _padded(spec: DetectorSpec, height: int, width: int) -> tuple[int, int]:
    """Return the size that the pipeline feeds the network with for a picture of this size."""
    multiple = spec.preprocess.multiple_of
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def _shorten(model: Any) -> None:
    """Drop what no runtime reads: a fifth of the file of so small a network, losing nothing.

    Inferred shapes are inferred again by whoever wants them; the names of tensors between nodes
    repeat the path of the module, which the nodes keep; and a layer that is used six times, as in
    EXTD, needs its weights once.
    """
    graph = model.graph
    del graph.value_info[:]
    short: dict[str, str] = {"": ""}  # an optional input that is left out
    short |= {value.name: value.name for value in (*graph.input, *graph.output)}
    unique: dict[bytes, Any] = {}
    for tensor in graph.initializer:
        name = tensor.name
        tensor.name = ""
        first = unique.setdefault(tensor.SerializeToString(deterministic=True), tensor)
        if first is tensor:
            short[name] = tensor.name = f"w{len(unique)}"
        else:
            short[name] = first.name
    kept = list(unique.values())
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [short[name] for name in node.input]
        node.output[:] = [short.setdefault(name, f"t{len(short)}") for name in node.output]
        node.doc_string = ""


class _Libraries(NamedTuple):
    onnx: Any
    onnxslim: Any


def _libraries() -> _Libraries:
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingError(
            f"Exporting to ONNX needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[export]'"
        ) from error
    return _Libraries(onnx, onnxslim)


def _compare_tensors(
    name: str, ours: "np.ndarray[Any, Any]", theirs: "np.ndarray[Any, Any]", *, where: str
) -> None:
    """Raise ParityError unless both are the same up to rounding."""
    if ours.shape != theirs.shape:
        raise ParityError(
            f"At {where}, {name} has shape {theirs.shape} in the file and {ours.shape} in torch.\n"
            "An operation of the model fixes its size; --fixed exports one size only."
        )
    finite = np.isfinite(ours)
    scale = max(1.0, float(np.abs(ours[finite]).max(initial=0)))
    gap = float(np.abs(ours[finite] - theirs[finite]).max(initial=0))
    # Untrained detectors can decode to infinite boxes; those must be the same ones.
    same = np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
    if not (same and gap <= 1e-3 * scale):
        raise ParityError(
            f"At {where}, {name} differ from torch by up to {gap:.1e}, of {scale:.1e}.\n"
            "Try another --opset or exporter, and report the model's operations as a bug."
        )
