"""Takeover: the weights of a graph, put back into the network that the graph was made from.

The channels of a graph may be evened out, its biases corrected, and its norms are folded into the
layers before them. A network that takes all this over computes what the graph does, is a float
network of the same modules as before, and is exported as that graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimface.compress.quantize.calls import Call, layer_of, places
from slimface.compress.quantize.qdq import Graph, runner
from slimface.core.faces import Floats
from slimface.export.graph import Graph as Answers
from slimface.model.network import Network

_LAYER = ("input", "weight", "bias")
_NORM = (
    *("input", "running_mean", "running_var", "weight", "bias"),
    *("training", "momentum", "eps"),
)
"""Arguments of torch's functions, in order."""

_ALIKE = 1e-3
"""Rounding of float32 through all layers, as a share of an answer's largest magnitude."""


@torch.no_grad()
def take_over_(
    network: Network, graph: Graph, model: Any, calls: Sequence[Call], inputs: Sequence[Floats]
) -> bool:
    """Give a network the weights of the convolutions of a graph.

    Args:
        network: Changed in place, or not at all.
        graph: What was exported from it.
        model: The same graph with other weights, an ``onnx.ModelProto``.
        calls: Of the network.
        inputs: What they were made of.

    Returns:
        Whether the network now computes what ``model`` does. It may not: a layer that is used
        several times has one weight, and a graph may have several for it.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    convolutions = [name for name in graph.layers if graph.nodes[name].op_type == "Conv"]
    outputs = {graph.nodes[name].output[0]: name for name in convolutions}
    at = places(graph.values(list(outputs), inputs), calls)
    weights = _weights(model)
    for tensor, name in outputs.items():
        if tensor in at:
            _put_(at[tensor], calls, *(weights.get(one) for one in graph.nodes[name].input[1:3]))
    run = runner(model)
    if all(_alike(network, images, run(images)) for images in inputs):
        return True
    network.load_state_dict(before)
    return False


def _weights(model: Any) -> Mapping[str, Tensor]:
    from onnx import numpy_helper

    return {
        one.name: torch.from_numpy(numpy_helper.to_array(one).copy())
        for one in model.graph.initializer
    }


def _put_(
    number: int, calls: Sequence[Call], weight: Tensor | None, bias: Tensor | None = None
) -> None:
    """Set weight and bias of the layer behind a call, and what its norm, if any, adds.

    A norm goes on multiplying: weights that have its scale in them are of very different sizes, and
    an optimizer whose steps are all alike would ruin the small ones. It multiplies by positive
    numbers only, so that the ends of a grid stay at the same sides.
    """
    layer = layer_of(number, calls)
    if layer is None or weight is None:
        return
    own = calls[layer].asked.arguments(_LAYER)
    shift = torch.zeros(len(weight)) if bias is None else bias
    place = own.get("bias")
    if number != layer:
        norm = calls[number].asked.arguments(_NORM)
        follows = calls[number].name == "batch_norm" and calls[number].readings[0] == layer
        if not follows or norm["weight"] is None or norm["bias"] is None:
            return
        norm["weight"].abs_()
        scale = norm["weight"] / (norm["running_var"] + norm["eps"]).sqrt()
        by = torch.where(scale > 0, scale, 1)
        weight = weight / by.reshape(-1, *[1] * (weight.ndim - 1))
        shift = shift + norm["running_mean"] * scale
        if place is not None:
            place.zero_()
        place = norm["bias"]
    own["weight"].copy_(weight)
    if place is not None:
        place.copy_(shift)


def _alike(network: Any, images: Floats, wanted: Sequence[Floats]) -> bool:
    given = Answers(network)(torch.from_numpy(images))
    return all(
        float(np.abs(mine.numpy() - other).max(initial=0))
        <= _ALIKE * max(1.0, float(np.abs(other).max(initial=0)))
        for mine, other in zip(given, wanted, strict=True)
    )
