"""Bisect: the first layer at which two models of the same layers part.

Both are shown the same input, and every layer's output is compared in the order in which torch
computes them. Batch norms are folded into their convolutions before, as exporters do, so a layer of
a checkpoint and the node of an ONNX file that was made from it give the same numbers.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from slimface.core.faces import Floats
from slimface.core.value import Value
from slimface.deploy.pipeline import Picture, Pipeline
from slimface.deploy.runtimes import OnnxNetwork
from slimface.errors import MissingError, UsageError
from slimface.model.predictor import TorchNetwork
from slimface.model.surgery import fold_batch_norms

GAPS = {"float32": 1e-3, "float16": 2e-2, "int8": 0.2}
"""Largest difference of a layer's output, as a share of the largest number in it."""


class Departure(Value):
    """Where two models part."""

    reference: str
    candidate: str
    layers: int = Field(ge=0)
    """So many layers were compared."""

    allowed: float
    """Share of its largest number by which a layer's output may differ."""

    agrees_until: str = ""
    """The last layer before the departure; empty if there is none."""

    departs_at: str = ""
    """The first layer whose output differs by more than ``allowed``; empty if none does."""

    gap: float | None = None
    """By how much it does; None: the two outputs have different shapes."""

    def explain(self) -> str:
        """Return the finding in a sentence."""
        if not self.departs_at:
            return (
                f"all {self.layers} layers that {self.reference} and {self.candidate} share "
                f"agree to within {self.allowed:.1e} of their range: what differs comes after "
                "them, in the reading of the outputs or in the spec"
            )
        after = f"{self.agrees_until} is the last that agrees" if self.agrees_until else (
            "no layer before it was compared: look at the preprocessing"
        )  # fmt: skip
        how = "has another shape" if self.gap is None else f"differs by {self.gap:.1e} of its range"
        return f"the first layer that departs is {self.departs_at}: it {how}; {after}"


def bisect(
    reference: Pipeline,
    candidate: Pipeline,
    picture: Picture,
    *,
    allowed: float = GAPS["float32"],
    names: tuple[str, str] = ("the model", "the file"),
) -> Departure:
    """Find the first layer at which two models part on a picture.

    Args:
        reference: A checkpoint or an ONNX file.
        candidate: Another, made of the same layers.
        picture: What both look at.
        allowed: Share of its largest number by which a layer's output may differ.
        names: What to call the two sides.

    Raises:
        UsageError: A side is of another kind, or they have no layer in common.
        MissingError: onnx is not installed.
    """
    images = reference.prepare([picture]).copy()
    theirs = dict(_layers(candidate, images))
    compared, last = 0, ""
    said = {"reference": names[0], "candidate": names[1], "allowed": allowed}
    for name, ours in _layers(reference, images):
        if name not in theirs:
            continue
        compared += 1
        gap = _gap(ours, theirs[name])
        if gap is None or not gap <= allowed:
            return Departure(**said, layers=compared, agrees_until=last, departs_at=name, gap=gap)
        last = name
    if not compared:
        raise UsageError(
            f"{names[0]} and {names[1]} have no layer of the same name.\n"
            "Compare models of the same architecture; parity without --bisect compares any two."
        )
    return Departure(**said, layers=compared, agrees_until=last)


def _gap(ours: Floats, theirs: Floats) -> float | None:
    if ours.shape != theirs.shape:
        return None
    scale = max(float(np.abs(ours).max(initial=0)), float(np.finfo(np.float32).tiny))
    return float(np.abs(ours - theirs).max(initial=0)) / scale


def _layers(pipeline: Pipeline, images: Floats) -> Iterable[tuple[str, Floats]]:
    network = pipeline.network
    if isinstance(network, TorchNetwork):
        return _torch_layers(network, images)
    if isinstance(network, OnnxNetwork):
        return _onnx_layers(network.path, images)
    raise UsageError(
        f"{pipeline.name} runs in {pipeline.runtime}, whose files do not keep the names of the "
        "layers.\nBisect the checkpoint, or an ONNX file exported from it."
    )


def _torch_layers(network: TorchNetwork, images: Floats) -> list[tuple[str, Floats]]:
    """Return the output of each call of each layer, in order; calls after the first have ``_1``."""
    folded = fold_batch_norms(network.detector).cpu().eval()
    calls: dict[str, int] = {}
    found: list[tuple[str, Floats]] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            count = calls[name] = calls.get(name, -1) + 1
            # Activations in place would change it afterwards.
            found.append((f"{name}_{count}" if count else name, output.clone().numpy()))

        return hook

    for name, module in folded.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(watch(name))
    with torch.inference_mode():
        folded(torch.from_numpy(images))
    return found


def _onnx_layers(path: Path, images: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield the output of each node whose name has the path of a layer, in the file's order."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingError(
            f"Looking into {path} needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[export]'"
        ) from error
    model = onnx.load(path, load_external_data=False)
    wanted = {
        node.output[0]: _layer_name(node.name)
        for node in model.graph.node
        if node.op_type != "Cast" and _layer_name(node.name)
    }
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(list(wanted), {session.get_inputs()[0].name: images})
    for name, output in zip(wanted.values(), found, strict=True):
        yield name, np.asarray(output, dtype=np.float32)


def _layer_name(node: str) -> str:
    """Return the module of ``/detector/base.1/conv/conv.0/Conv``: ``base.1.conv.0``."""
    _, _, rest = node.partition("/detector/")
    parts = rest.split("/")[:-1]
    kept: list[str] = []
    for part in parts:
        # The layer of a stack repeats the name of the stack.
        if kept and part.startswith(f"{kept[-1]}."):
            kept.pop()
        kept.append(part)
    return ".".join(kept)
