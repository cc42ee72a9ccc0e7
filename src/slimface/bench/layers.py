"""Layers: how long single convolutions take in ONNX Runtime.

Runtimes compute in blocks of channels, and take another way where a width is no multiple of what
they like, so the time of a layer is no formula of its widths. It is measured, each layer in a
network of its own: the layer and a ReLU, between the memory orders that the runtime chooses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from slimface.bench.side_by_side import clock
from slimface.errors import MissingError

T = TypeVar("T")

_WARM_UP = 2
_LEAST_RUNS, _MOST_RUNS = 5, 20
_TURN_MS = 4.0
"""A layer's turn lasts about so long."""

_CHUNK = 64
"""Layers that take turns: enough to be spread over a second, few enough for the memory."""


class Convolution(NamedTuple):
    """A two-dimensional convolution on a picture of a given size."""

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    depthwise: bool
    height: int
    """Of its input."""

    width: int


def time_layers(
    layers: Sequence[Convolution],
    *,
    threads: int = 1,
    rounds: int = 2,
    finished: Callable[[Mapping[Convolution, float]], None] = lambda _times: None,
    track: Callable[..., Iterable[Any]] = lambda items, _description, **_: items,
) -> dict[Convolution, float]:
    """Return the least milliseconds of each layer, in processor time if there is one thread.

    Args:
        layers: What to measure.
        threads: Threads within the layer.
        rounds: How often each layer gets its turn.
        finished: Told of the layers that are done, so that the caller can keep them.
        track: May draw a bar over the chunks.

    Raises:
        MissingError: onnx or onnxruntime is not installed.
    """
    times: dict[Convolution, float] = {}
    chunks = [layers[i : i + _CHUNK] for i in range(0, len(layers), _CHUNK)]
    for chunk in track(chunks, "timing layers", total=len(chunks)):
        for _ in range(rounds):
            for layer in chunk:
                times[layer] = min(times.get(layer, np.inf), _least(layer, threads))
        finished({layer: times[layer] for layer in chunk})
    return times


def _least(layer: Convolution, threads: int) -> float:
    session = _session(_model(layer), threads)
    feed = {
        "x": np.random.default_rng(0)
        .standard_normal((1, layer.inputs, layer.height, layer.width))
        .astype(np.float32)
    }
    now = clock(threads)
    best, runs = np.inf, _WARM_UP + _LEAST_RUNS
    done = 0
    while done < runs:
        start = now()
        session.run(None, feed)
        taken = (now() - start) * 1e3
        done += 1
        if done > _WARM_UP:
            best = min(best, taken)
            runs = _WARM_UP + int(np.clip(_TURN_MS / best, _LEAST_RUNS, _MOST_RUNS))
    return float(best)


def _session(content: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _model(layer: Convolution) -> bytes:
    """Return the ONNX file of a network of this layer and a ReLU."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingError(
            "Timing single layers needs the package onnx, which is not installed.\n"
            "Install it with: pip install 'slimface[export]'"
        ) from error
    groups = layer.inputs if layer.depthwise else 1
    rng = np.random.default_rng(0)
    # As large as trained weights: numbers that underflow are slower than others.
    shape = (layer.outputs, layer.inputs // groups, *layer.kernel)
    weight = rng.standard_normal(shape).astype(np.float32) * 0.1
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "weight", "bias"],
            ["y"],
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=layer.padding * 2,
            dilations=layer.dilation,
            group=groups,
        ),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    size = [1, layer.inputs, layer.height, layer.width]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.full(layer.outputs, 0.1, np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    content: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return content
