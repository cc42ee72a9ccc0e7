"""Post-training quantisation: a float file and pictures in, a file of eight bits out."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slimface.compress.quantize import openvino
from slimface.compress.quantize.calibrate import WHOLE, shown_to_networks
from slimface.compress.quantize.choice import Network, as_learnt, for_onnxruntime, for_openvino
from slimface.compress.quantize.grid import learnt_on
from slimface.compress.quantize.qdq import short
from slimface.compress.quantize.ranges import Method
from slimface.compress.quantize.sensitive import Sensitivity
from slimface.compress.quantize.settings import Quantization, told
from slimface.core.faces import Floats
from slimface.core.spec import CASCADE_NETS
from slimface.core.value import Value
from slimface.deploy.media import Picture
from slimface.deploy.runtimes.cascade import SPEC_FILE, is_cascade
from slimface.errors import UsageError
from slimface.export.onnx import shorten_
from slimface.files import beside_folder, bytes_of, together
from slimface.loading import load_any

log = logging.getLogger(__name__)

_BITS = {4: "four", 8: "eight"}

SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml"}


def _no_bar(items: Iterable[Any], description: str, total: int | None = None) -> Iterable[Any]:
    return items


class QuantizedNetwork(Value):
    """What became of one network."""

    name: str
    """Empty for the one network of a model that is no cascade."""

    layers: int = Field(ge=0)
    """Layers that there are."""

    kept: tuple[str, ...] = ()
    """Those that stayed in float32."""

    eight: tuple[str, ...] = ()
    """Those whose weights have eight bits where four were asked for."""

    unsuited: tuple[str, ...] = ()
    """Layers that the runtime has no integer kernel for; they stayed in float32, too."""

    by: Literal["slimface", "nncf"] = "slimface"
    """Whose roundings they are."""

    ranges: Method
    equalised: bool
    corrected: bool
    sqnr_db: float
    """Signal over noise of the output that suffers most, in decibels."""

    learnt: bool = False
    """Whether its weights have learnt with these very roundings; then ``ranges``, ``equalised`` and
    ``corrected`` are what they were when the learning began."""

    sensitivity: tuple[Sensitivity, ...] = ()
    """What each layer costs alone, where it was measured."""


class Quantized(Value):
    """What became of a model."""

    settings: Quantization
    pictures: int = Field(gt=0)
    """Pictures that were calibrated on."""

    networks: tuple[QuantizedNetwork, ...]
    float_bytes: int
    bytes: int

    def in_bits(self, *networks: QuantizedNetwork) -> str:
        """Return how many layers of some of the networks have how many bits, for people."""
        layers = sum(one.layers for one in networks)
        eight = sum(len(one.eight) for one in networks)
        fewest = layers - eight - sum(len(one.kept) for one in networks)
        finer = f", {eight} in eight" if eight else ""
        return f"{fewest} of {layers} layers in {_BITS[self.settings.bits]} bits{finer}"

    def explain(self) -> str:
        """Return the finding in a sentence for people."""
        worst = min(one.sqnr_db for one in self.networks)
        return (
            f"{self.in_bits(*self.networks)}, {self.float_bytes:,} bytes became "
            f"{self.bytes:,} ({self.float_bytes / self.bytes:.2f} times smaller), signal over "
            f"noise {worst:.1f} dB"
        )


def quantize(
    source: Path,
    out: Path,
    settings: Quantization,
    pictures: Iterable[tuple[str, Picture]],
    *,
    track: Callable[..., Iterable[Any]] = _no_bar,
) -> Quantized:
    """Write a float ONNX file, or the folder of an exported cascade, in eight bits.

    Args:
        source: What ``slimface export`` wrote, in float32.
        out: The file, or the folder, to write; what is there is replaced at the very end.
        settings: How.
        pictures: Names and pictures as the device will see them; a few dozen will do.
        track: ``track(items, description, total=...)`` may draw a bar.

    Raises:
        UsageError: There is no picture, nothing can be quantised, no layer has the name of one to
            keep, or ``out`` has another suffix than the runtime's files.
        MissingError: ``source`` or a package is not there.
        DataError: A picture is damaged.
    """
    suffix = SUFFIXES[settings.runtime]
    whole = not is_cascade(source)
    if whole and (source.suffix != ".onnx" or out.suffix != suffix):
        wrong = source if source.suffix != ".onnx" else out
        raise UsageError(
            f"{wrong}: a float .onnx file becomes a {suffix} file.\n"
            "Export the model to ONNX first, and name the result so."
        )
    listed = list(pictures)
    shown = shown_to_networks(load_any(source, threads=1), listed)
    out.parent.mkdir(parents=True, exist_ok=True)
    found: list[QuantizedNetwork] = []
    with together(out) if whole else beside_folder(out) as part:
        for name, inputs in shown.items():
            given, target = (source, part) if whole else _net(source, part, name, suffix)
            found.append(_one(name, given, target, settings, inputs, track))
        if not whole:
            (part / SPEC_FILE).write_bytes((source / SPEC_FILE).read_bytes())
    return Quantized(
        settings=settings,
        pictures=len(listed),
        networks=tuple(found),
        float_bytes=bytes_of(source),
        bytes=model_bytes(out),
    )


def model_bytes(path: Path) -> int:
    """Return the bytes of a model file and of the weights beside it."""
    beside = path.with_suffix(".bin")
    return bytes_of(path) + (bytes_of(beside) if path.suffix == ".xml" else 0)


def _net(source: Path, part: Path, name: str, suffix: str) -> tuple[Path, Path]:
    assert name in CASCADE_NETS
    given = source / f"{name}.onnx"
    if not given.is_file():
        raise UsageError(
            f"{source} has no {given.name}.\nOnly cascades exported to ONNX can be quantised."
        )
    return given, part / f"{name}{suffix}"


def _one(
    name: str,
    source: Path,
    target: Path,
    settings: Quantization,
    inputs: Sequence[Floats],
    track: Callable[..., Iterable[Any]],
) -> QuantizedNetwork:
    import onnx

    model = onnx.load(source)
    network = Network(model, inputs, settings, whole=name == WHOLE)
    graph = network.plain
    if graph.unsuited:
        log.warning("%s: these stay in float32: %s", source.name, ", ".join(graph.unsuited))
    grid = learnt_on(model)
    if settings.runtime == "openvino":
        if grid is not None:
            log.info("the weights have learnt with ONNX Runtime's roundings; OpenVINO has others")
        found = for_openvino(network, track)
        openvino.write(found.made, model, target, settings)
    else:
        found = for_onnxruntime(network, track) if grid is None else as_learnt(network, grid)
        _finish_(found.made, model, settings)
        target.write_bytes(found.made.SerializeToString())
    return QuantizedNetwork(
        name=name,
        layers=len(graph.layers),
        kept=tuple(short(layer) for layer in graph.layers if layer in found.kept),
        eight=tuple(short(layer) for layer in found.layers if layer in found.how.eight),
        unsuited=graph.unsuited,
        by=found.by,
        ranges=found.how.ranges,
        equalised=found.equalised,
        corrected=found.how.correct,
        sqnr_db=round(found.sqnr_db, 2),
        learnt=found.learnt,
        sensitivity=tuple(found.ranking),
    )


def _finish_(made: Any, model: Any, settings: Quantization) -> None:
    """Name things shortly, and say what was done where the file says what it is."""
    import onnx

    shorten_(made)
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    made.doc_string = model.doc_string
    said = {one.key: one.value for one in model.metadata_props}
    onnx.helper.set_model_props(made, told(said, settings))
