"""ONNX: one file with the network, its spec, and dynamic batch, height and width.

Two exporters come with torch. The one that traces TorchScript is the default: for EResFD it takes
0.7 s where the newer one (torch.export) takes 20 s, and the two graphs run equally fast
(``docs/ledger.md``). torch announces that it will be removed; ``exporter="dynamo"`` is its
successor and passes the same tests.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator

import slimface
from slimface.core.grid import GRID_KEY
from slimface.errors import ParityError, UsageError
from slimface.export.form import Form
from slimface.export.graph import Graph, check_tensors, noise, padded
from slimface.export.suppression import append_suppression
from slimface.model.checkpoint import grid_of
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector

log = logging.getLogger(__name__)

OLDEST_OPSET = 17
NEWEST_OPSET = 20
"""What both exporters can write and every ONNX Runtime we support can read."""

_OTHER_SIZE = (333, 517)
"""An odd size, divisible by no stride: where rounding of map sizes goes wrong first."""


class Onnx(Form):
    """Write a detector as ONNX: one file, its spec and where it comes from in the metadata."""

    kind: Literal["onnx"] = "onnx"
    precision: Literal["float32", "float16"] = "float32"
    """``float16`` halves the file; pictures go in and faces come out in float32."""

    opset: int = Field(default=18, ge=OLDEST_OPSET, le=NEWEST_OPSET)
    """Version of the operator set."""

    exporter: Literal["torchscript", "dynamo"] = "torchscript"

    suppress: bool = False
    """Suppress within the graph as well, see ``slimface.export.suppression``; needs ``decode``."""

    suffix: ClassVar[str] = ".onnx"

    @model_validator(mode="after")
    def _only_boxes_are_suppressed(self) -> Self:
        if self.suppress and not self.decode:
            raise ValueError("suppression within the graph needs decoding within the graph: decode")
        return self

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``.

        Raises:
            MissingError: onnx or onnxslim is not installed.
            ParityError: The graph has another opset than asked for, or gives other numbers than
                the detector, at this size or (if dynamic) at another.
            CheckpointError: float16 was asked for, and the detector's numbers do not fit.
        """
        onnx, onnxslim = self._libraries()
        graph = self.graph(detector)
        model = onnx.load_from_string(self._trace(graph, path))
        model = onnxslim.slim(model)
        shorten_(model)
        if self.precision == "float16":
            model = halved(onnx, model)
        model.producer_name, model.producer_version = "slimface", slimface.__version__
        model.doc_string = f"{detector.spec.name}: face detector"
        said = self.metadata(detector, provenance, onnx=onnx.__version__)
        grid = grid_of(detector)
        if grid is not None and self.precision == "float32":
            said[GRID_KEY] = grid.model_dump_json()
        onnx.helper.set_model_props(model, said)
        self._check_opset(model)
        self._compare(graph, model.SerializeToString(), path)
        if self.suppress:
            append_suppression(onnx, model, detector.spec)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())

    def _outputs(self, detector: Any) -> str:
        if self.suppress and isinstance(detector, Classifier):
            raise UsageError(
                f"{detector.spec.name} is a classifier: it has no boxes to suppress.\n"
                "Export it without --nms."
            )
        return "faces" if self.suppress else super()._outputs(detector)

    def _libraries(self) -> "_Libraries":
        try:
            import onnx
            import onnxslim
        except ImportError as error:
            raise self.missing(error) from error
        return _Libraries(onnx, onnxslim)

    def _trace(self, graph: Graph, path: Path) -> bytes:
        """Return the ONNX file one of torch's exporters makes; it may use ``path`` meanwhile."""
        height, width = padded(graph.detector.spec, self.height, self.width)
        images = torch.zeros(2 if self.dynamic else 1, 3, height, width)
        names = {0: "batch", 2: "height", 3: "width"}
        free = names if graph.detector.input_size is None else {0: "batch"}
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
                    dynamic_shapes=(dict.fromkeys(free, _ANY),) if self.dynamic else None,
                    **options,
                )
                assert program is not None
                content: bytes = program.model_proto.SerializeToString()
                return content
            anchors = {0: "batch", 1: "anchors"} if len(free) > 1 else free
            axes = {"images": free} | dict.fromkeys(graph.output_names, anchors)
            torch.onnx.export(
                graph,
                (images,),
                path,
                dynamo=False,
                dynamic_axes=axes if self.dynamic else None,
                **options,
            )
        return path.read_bytes()

    def _check_opset(self, model: Any) -> None:
        """Exporters have been seen to fall back to another version without a word."""
        found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        if found != {"ai.onnx": self.opset}:
            raise ParityError(
                f"Opset {self.opset} was asked for and the {self.exporter} exporter of torch "
                f"{torch.__version__} wrote {found}.\n"
                "Ask for --opset 18, which both exporters write."
            )

    def _compare(self, graph: Graph, content: bytes, path: Path) -> None:
        """Run the file and the detector on the same noise, at one size and at an odd one."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        spec = graph.detector.spec
        shapes = [(1, *padded(spec, self.height, self.width))]
        if self.dynamic:
            other = graph.detector.input_size or _OTHER_SIZE
            shapes.append((2, *padded(spec, *other)))
        for batch, height, width in shapes:
            images = noise(graph.detector, batch, height, width)
            with torch.no_grad():
                wanted = graph(images)
            try:
                given = session.run(None, {"images": images.numpy()})
            except Exception as error:  # onnxruntime raises classes of its own, all Exceptions
                raise ParityError(
                    f"{path.name} does not run on {batch} x 3 x {height} x {width}: {error}\n"
                    "An operation of the model fixes its size; --fixed exports one size only."
                ) from error
            for name, ours, theirs in zip(graph.output_names, wanted, given, strict=True):
                where = f"{height}x{width}"
                # Half the bits: 2^-11 of each number, and the gate looks at boxes.
                allowed = 1e-3 if self.precision == "float32" else 0.05
                check_tensors(name, ours.numpy(), theirs, where=where, tolerance=allowed)


_ANY = torch.export.Dim.DYNAMIC


def shorten_(model: Any) -> None:
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


def halved(onnx: Any, model: Any) -> Any:
    """Return an ONNX model that computes in float16 between float32 inputs and outputs.

    Raises:
        ParityError: It has an operation that no float16 can pass through.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        model = convert_float_to_float16(
            onnx.shape_inference.infer_shapes(model),
            keep_io_types=True,
            # Sizes of maps are counted in whole numbers above 2,048, which float16 has not.
            op_block_list=["Resize", "Range", "NonMaxSuppression", "TopK"],
        )
    except (ValueError, RuntimeError) as error:
        raise ParityError(
            f"The graph cannot be turned into float16: {error}\nExport it in float32."
        ) from error
    _sort(model.graph)
    del model.graph.value_info[:]
    return model


def _sort(graph: Any) -> None:
    """Put every node after those whose outputs it reads, as ONNX demands."""
    known = {"", *(value.name for value in (*graph.input, *graph.initializer))}
    waiting, done = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ParityError("The graph has a cycle.\nExport it in float32.")
        done += ready
        known.update(name for node in ready for name in node.output)
        chosen = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in chosen]
    ordered = [node.__class__.FromString(node.SerializeToString()) for node in done]
    del graph.node[:]
    graph.node.extend(ordered)
