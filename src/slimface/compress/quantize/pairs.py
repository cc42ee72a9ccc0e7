"""Pairs: QuantizeLinear and DequantizeLinear, put where a graph is to hold eight bits.

ONNX Runtime's quantiser puts one at each tensor that the nodes it is given read or write. Two kinds
lose accuracy there for nothing. What the last layers put out are the answers, and no layer reads
them. And what is joined was rounded before, so it stays as it is if all parts have the steps of the
whole, and is rounded a second time if each has its own.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from slimface.compress.quantize.ranges import Range

BEFORE_OUTPUT = "_QuantizeLinear_Input"
"""What ONNX Runtime's quantiser calls an output of the graph before it is rounded."""


def with_pairs(
    model: Any,
    nodes: Collection[str],
    ranges: Mapping[str, Range],
    *,
    answers: Collection[str] = (),
    bits: int = 8,
    eight: Collection[str] = (),
    reduce_range: bool = False,
) -> Any:
    """Return a graph with pairs at what some of its nodes read and write.

    Args:
        model: The float graph, an ``onnx.ModelProto``; changed.
        nodes: Names of the nodes.
        ranges: Of each tensor.
        answers: Tensors that stay in float32 though one of the nodes writes them.
        bits: Of weights, 4 or 8.
        eight: Nodes whose weights have eight bits, whatever ``bits`` says.
        reduce_range: Weights of eight bits make use of seven.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    finer = {"quant_type": QuantType.QInt8, "reduce_range": reduce_range}
    quantizer = QDQQuantizer(
        model,
        True,
        reduce_range and bits == 8,
        QuantType.QInt8 if bits == 8 else QuantType.QInt4,
        QuantType.QUInt8,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        },
        list(nodes),
        [],
        sorted({node.op_type for node in model.graph.node if node.name in nodes}),
        {
            "WeightSymmetric": True,
            "ActivationSymmetric": False,
            # ONNX's own pairs know four bits from opset 21 on.
            "UseQDQContribOps": bits < 8,
            "TensorQuantOverrides": {
                node.input[1]: [{**finer, "axis": _output_axis(node)}]
                for node in model.graph.node
                if node.name in eight
            },
        },
    )
    quantizer.quantize_model()
    _take_out_(quantizer.model, answers)
    quantizer.model.topological_sort()
    return quantizer.model.model


def _output_axis(layer: Any) -> int:
    """Return the axis of a layer's weights that counts its output channels."""
    if layer.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in layer.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}[layer.op_type]


def joined(
    nodes: Iterable[Any], outputs: Collection[str], ranges: Mapping[str, Range]
) -> dict[str, Range]:
    """Return ranges of which all parts of what is joined have that of the whole.

    It is what they are rounded to in the end; so they are rounded and cut off once. A part that
    something else reads, too, keeps its own: coarser steps would cost that reader.

    Args:
        nodes: Of the graph, each behind those that it reads from.
        outputs: Names of the graph's outputs.
        ranges: Of each tensor by itself.
    """
    listed = list(nodes)
    readers = Counter(outputs) + Counter(name for node in listed for name in node.input)
    found = dict(ranges)
    # From the last to the first: a whole may be a part of another one.
    for node in reversed(listed):
        whole = node.output[0]
        if node.op_type == "Concat" and whole in found:
            parts = (one for one in node.input if one in found and readers[one] == 1)
            found |= dict.fromkeys(parts, found[whole])
    return found


def _take_out_(model: Any, tensors: Iterable[str]) -> None:
    """Take the pairs at some tensors out again; ``model`` is ONNX Runtime's ``ONNXModel``."""
    quantizers = {node.input[0]: node for node in model.nodes() if node.op_type == "QuantizeLinear"}
    readers = model.input_name_to_nodes()
    for tensor in tensors:
        before = tensor + BEFORE_OUTPUT
        pair = quantizers.get(before) or quantizers.get(tensor)
        if pair is None:
            continue
        model.replace_output_of_all_nodes(before, tensor)
        for behind in readers[pair.output[0]]:
            model.replace_input_of_all_nodes(behind.output[0], tensor)
            model.remove_node(behind)
        model.remove_node(pair)
    model.clean_initializers()
