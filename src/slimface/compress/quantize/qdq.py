"""QDQ: an ONNX graph between whose layers numbers are eight bits.

A pair QuantizeLinear / DequantizeLinear stands at each tensor, which ONNX Runtime, OpenVINO and
OpenCV turn into integer kernels. Weights have a scale for each output channel and are symmetric
around zero; what layers put out is unsigned (Intel's integer instructions multiply unsigned by
signed bytes: signed by signed takes 1.5 times as long in ONNX Runtime). Biases have 32 bits.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, arXiv:1712.05877; Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference", 2018, arXiv:1806.08342 (scales for each channel).
"""

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimface.compress.quantize.calibrate import Seen, observe
from slimface.compress.quantize.equalise import equalised
from slimface.compress.quantize.pairs import joined, with_pairs
from slimface.compress.quantize.ranges import STEPS, Method, Range, range_of, width_of_steps
from slimface.core.faces import Floats
from slimface.errors import MissingError, UsageError

log = logging.getLogger(__name__)

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that have weights and that integer kernels exist for: the layers."""

BETWEEN = (
    "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Add",
    "Mul", "Resize", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice",
)  # fmt: skip
"""Operators that bytes may pass through on their way from one layer to the next. What is not here
(PRelu, HardSwish) is computed in float32 between two layers in eight bits."""

_FLOAT = 1
"""ONNX's number of float32."""


@dataclass(frozen=True, slots=True)
class How:
    """The arithmetic of a quantisation."""

    ranges: Method = "minmax"
    """How ranges are chosen."""

    correct: bool = False
    """Add the mean of what rounding the weights takes from each output channel to its bias.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, arXiv:1906.04721, section 4.2, with measured means.
    """

    reduce_range: bool = False
    """Weights of seven bits, for x86 processors without VNNI: their 16-bit sums overflow."""

    bits: int = 8
    """Of weights, 4 or 8."""

    eight: frozenset[str] = frozenset()
    """Layers whose weights have eight bits though ``bits`` says four."""

    def weight_bits(self, layer: str) -> int:
        """Return how many bits the weights of a layer make use of."""
        bits = 8 if layer in self.eight else self.bits
        return 7 if self.reduce_range and bits == 8 else bits


class Graph:
    """A float graph, and what its tensors held."""

    def __init__(self, model: Any) -> None:
        """Prepare a graph; ``model``, an ``onnx.ModelProto``, stays as it was.

        Raises:
            UsageError: It has no layer that can be quantised, or is quantised already.
        """
        onnx = _onnx()
        self.model = onnx.shape_inference.infer_shapes(copy.deepcopy(model))
        nodes = self.model.graph.node
        for i, node in enumerate(nodes):
            node.name = node.name or f"{node.op_type}_{i}"
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.nodes = {node.name: node for node in nodes}
        self._check()
        self._own_biases()
        self.layers: tuple[str, ...] = tuple(n.name for n in nodes if self._is_layer(n))
        self.body = self._upstream(self.layers)
        self.tensors = self._float_tensors()
        self.seen: dict[str, Seen] = {}
        self._found: dict[Method, dict[str, Range]] = {}

    @property
    def unsuited(self) -> tuple[str, ...]:
        """Nodes with weights that no integer kernel exists for, as ``name (operator)``."""
        return tuple(
            f"{short(node.name)} ({node.op_type})"
            for node in self.nodes.values()
            if node.op_type not in WEIGHTED
            and any(len(self.weights[i].dims) > 1 for i in node.input if i in self.weights)
            and node.op_type != "PRelu"
        )

    @property
    def makers(self) -> dict[str, str]:
        """Who makes each tensor, as ``node`` or, of its later outputs, ``node:1``.

        Nodes keep their names from one export to the next, tensors do not.
        """
        made = {given.name: given.name for given in self.model.graph.input}
        for node in self.nodes.values():
            for i, tensor in enumerate(node.output):
                made[tensor] = f"{node.name}:{i}" if i else node.name
        return made

    @property
    def heads(self) -> tuple[str, ...]:
        """The layers that no other layer comes after."""
        read = {tensor for layer in self.layers for tensor in self.nodes[layer].input}
        before = [node.name for node in self.nodes.values() if not read.isdisjoint(node.output)]
        others = self._upstream(before)
        return tuple(layer for layer in self.layers if layer not in others)

    @property
    def outputs(self) -> set[str]:
        """Names of the tensors that the graph answers."""
        return {output.name for output in self.model.graph.output}

    def look(self, inputs: Sequence[Floats]) -> None:
        """Run the graph, and keep what its tensors held.

        Raises:
            UsageError: A tensor is infinite or no number.
        """
        given = self.model.graph.input[0].name
        names = [name for name in self.tensors if name != given]
        self.seen = observe(self._revealing(names), names, inputs)
        self.seen |= observe(lambda images: [images], [given], inputs)
        self._found.clear()

    def values(self, names: Sequence[str], inputs: Sequence[Floats]) -> dict[str, list[Floats]]:
        """Return what some tensors hold, an array an input."""
        run = self._revealing(names)
        return dict(zip(names, map(list, zip(*map(run, inputs), strict=True)), strict=True))

    def _revealing(self, names: Sequence[str]) -> Callable[[Floats], list[Floats]]:
        """Return what runs the graph and gives these tensors."""
        model = copy.deepcopy(self.model)
        for name in names:
            if name not in self.outputs:
                model.graph.output.add().name = name
        return runner(model, names)

    def equalised(self, inputs: Sequence[Floats]) -> "Graph":
        """Return an equal graph in which the ranges of channels are even; see ``equalise``."""
        onnx = _onnx()
        arrays = {name: onnx.numpy_helper.to_array(one) for name, one in self.weights.items()}
        even = Graph(self.model)
        for name, fresh in equalised(self.nodes, arrays, self.outputs, self.seen).items():
            even.weights[name].CopyFrom(onnx.numpy_helper.from_array(fresh, name))
        even.look(inputs)
        return even

    def quantized(
        self,
        layers: Collection[str],
        how: How = How(),
        *,
        reach: Mapping[str, Range] | None = None,
    ) -> Any:
        """Return the graph with these layers, and what lies between them, in eight bits.

        Args:
            layers: Of ``self.layers``.
            how: The arithmetic.
            reach: The range of each tensor; None: those that ``how`` chooses.
        """
        chosen = set(layers)
        if not chosen:
            return copy.deepcopy(self.model)
        return with_pairs(
            self.prepared(chosen, how),
            [*chosen, *self._between(chosen)],
            reach or self.reach(how.ranges),
            answers=[self.nodes[name].output[0] for name in self.heads if name in chosen],
            bits=how.bits,
            eight=how.eight,
            reduce_range=how.reduce_range,
        )

    def reach(self, method: Method) -> dict[str, Range]:
        """Return the range of each tensor that was looked at, as a method chooses it."""
        if method not in self._found:
            alone = {name: range_of(one, method) for name, one in self.seen.items()}
            self._found[method] = joined(self.nodes.values(), self.outputs, alone)
        return self._found[method]

    def _between(self, layers: set[str]) -> list[str]:
        """Nodes that pass bytes on from one of these layers to another one.

        What lies behind the last layer stays in float32: there logits become answers.
        """
        before = self._reached(layers, "output", "input")
        after = self._reached(layers, "input", "output")
        return [name for name in self.nodes if name in before and name in after]

    def _reached(self, layers: set[str], end: str, start: str) -> set[str]:
        """Nodes that bytes get to from these layers, through others that bytes may pass."""
        readers: dict[str, list[Any]] = {}
        for node in self.nodes.values():
            for tensor in getattr(node, start):
                readers.setdefault(tensor, []).append(node)
        found: set[str] = set()
        waiting = [self.nodes[name] for name in layers]
        while waiting:
            node = waiting.pop()
            for tensor in getattr(node, end):
                for other in readers.get(tensor, []) if tensor in self.tensors else []:
                    if other.op_type in BETWEEN and other.name not in found:
                        found.add(other.name)
                        waiting.append(other)
        return found

    def prepared(self, layers: Collection[str], how: How) -> Any:
        """Return the float graph whose weights are rounded: with its biases corrected, if asked."""
        onnx = _onnx()
        model = copy.deepcopy(self.model)
        if not how.correct:
            return model
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for name in layers:
            node = self.nodes[name]
            if node.op_type != "Conv" or len(node.input) < 3:
                continue
            weight = onnx.numpy_helper.to_array(tensors[node.input[1]])
            lost = weight - rounded_weights(weight, bits=how.weight_bits(name))
            means = self.seen[node.input[0]].mean
            groups = len(means) // weight.shape[1]
            of_group = np.repeat(
                means.reshape(groups, weight.shape[1]), len(weight) // groups, axis=0
            )
            shift = (lost.sum(axis=tuple(range(2, lost.ndim))) * of_group).sum(axis=1)
            bias = tensors[node.input[2]]
            fixed = onnx.numpy_helper.to_array(bias) + shift.astype(np.float32)
            bias.CopyFrom(onnx.numpy_helper.from_array(fixed, bias.name))
        return model

    def _check(self) -> None:
        operators = {node.op_type for node in self.nodes.values()}
        if operators & {"QuantizeLinear", "DequantizeLinear", "QLinearConv"}:
            raise UsageError(
                "The file is quantised already.\nQuantise the float32 file, or the checkpoint."
            )
        if not any(self._is_layer(node) for node in self.nodes.values()):
            others = ", ".join(self.unsuited) or "none with weights"
            raise UsageError(
                "The file has no layer that ONNX Runtime computes in eight bits "
                f"({', '.join(WEIGHTED)}); it has: {others}.\nKeep float32 for this model."
            )

    def _is_layer(self, node: Any) -> bool:
        constant = len(node.input) > 1 and node.input[1] in self.weights
        return (
            node.op_type in WEIGHTED
            and constant
            and self.weights[node.input[1]].data_type == _FLOAT
        )

    def _own_biases(self) -> None:
        """Give each layer a bias of its own: its scale is the product of two others."""
        used: set[str] = set()
        for node in self.nodes.values():
            if node.op_type not in WEIGHTED or len(node.input) < 3:
                continue
            if node.input[2] in used and node.input[2] in self.weights:
                own = copy.deepcopy(self.weights[node.input[2]])
                own.name = f"{own.name}_of_{node.name}"
                node.input[2] = own.name
                self.model.graph.initializer.append(own)
                self.weights[own.name] = own
            used.add(node.input[2])

    def _upstream(self, layers: Sequence[str]) -> set[str]:
        """Names of all nodes that a layer depends on, and the layers."""
        producers = {output: node for node in self.nodes.values() for output in node.output}
        found: set[str] = set()
        waiting = [self.nodes[name] for name in layers]
        while waiting:
            node = waiting.pop()
            if node.name not in found:
                found.add(node.name)
                waiting += [producers[i] for i in node.input if i in producers]
        return found

    def _float_tensors(self) -> list[str]:
        """Names of the float32 tensors that layers read or write, or that lie between them."""
        graph = self.model.graph
        kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.output, *graph.value_info)
        }
        names = dict.fromkeys(
            tensor
            for node in self.nodes.values()
            if node.name in self.body
            for tensor in (*node.input, *node.output)
        )
        return [n for n in names if n not in self.weights and kinds.get(n) == _FLOAT]


def runner(model: Any, outputs: Sequence[str] | None = None) -> Callable[[Floats], list[Floats]]:
    """Return what runs an ONNX model in ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = session.get_inputs()[0].name
    names = list(outputs) if outputs is not None else None

    def run(images: Floats) -> list[Floats]:
        tensors: list[Floats] = session.run(names, {given: images})
        return tensors

    return run


def rounded_weights(weight: Floats, *, bits: int = 8) -> Floats:
    """Return weights as a scale for each output channel, the first axis, holds them."""
    low, high = STEPS[bits]
    axes = tuple(range(1, weight.ndim))
    scale = np.abs(weight).max(axis=axes, keepdims=True) * width_of_steps(bits)
    # A filter of zeros stays one.
    scale = np.where(scale == 0, 1, scale)
    back: Floats = (np.clip(np.rint(weight / scale), low, high) * scale).astype(np.float32)
    return back


def short(node: str) -> str:
    """Return the name of a layer for people: ``/detector/base/conv1/Conv`` is ``base/conv1``."""
    parts = node.strip("/").removeprefix("detector/").split("/")
    return "/".join(parts[:-1]) or node


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingError(
            "Quantising needs the package onnx, which is not installed.\n"
            "Install it with: pip install 'slimface[export]'"
        ) from error
    return onnx
