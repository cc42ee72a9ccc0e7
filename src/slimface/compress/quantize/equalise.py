"""Equalisation: channels of one tensor get similar ranges, and the network computes the same.

Eight bits are shared by all channels of a tensor, so one that stays within 0.1 beside others that
reach 10 has two or three levels left. Between two convolutions with a homogeneous activation a
channel can be divided by any positive number, if the next layer multiplies by it.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019, arXiv:1906.04721, section 4.1, for tensors with measured ranges and weights with a scale for
each output channel.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from slimface.compress.quantize.calibrate import Seen
from slimface.core.faces import Floats

HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool")
"""Operators with ``f(s x) = s f(x)`` for each channel and ``s > 0``."""

_LARGEST = 1e4
"""Channels that hardly ever say anything are not blown up further."""


class _Pair(NamedTuple):
    """A layer and the layers that alone read what it puts out."""

    first: Any
    tensor: str
    """What the readers read."""

    readers: list[Any]


def equalised(
    nodes: Mapping[str, Any], weights: dict[str, Any], outputs: set[str], seen: Mapping[str, Seen]
) -> dict[str, Floats]:
    """Return the weights and biases of an equal network whose tensors have even ranges.

    Args:
        nodes: Of an ONNX graph, by name.
        weights: Its initialisers by name, as arrays.
        outputs: Names of its outputs.
        seen: What its tensors held.
    """
    fresh: dict[str, Floats] = {}
    for pair in _pairs(nodes, weights, outputs):
        peak = seen[pair.tensor].peak if pair.tensor in seen else np.zeros(0, np.float32)
        names = [pair.first.input[1], *(reader.input[1] for reader in pair.readers)]
        first, *next_ = (fresh.get(name, weights[name]) for name in names)
        if len(peak) != len(first):
            continue
        by = _factors(peak, next_)
        shape = (-1, *[1] * (first.ndim - 1))
        fresh[names[0]] = (first / by.reshape(shape)).astype(np.float32)
        if len(pair.first.input) > 2:
            bias = pair.first.input[2]
            fresh[bias] = (fresh.get(bias, weights[bias]) / by).astype(np.float32)
        for name, weight in zip(names[1:], next_, strict=True):
            across = (-1, 1) if weight.shape[1] == 1 else (1, -1)
            fresh[name] = (weight * by.reshape(*across, 1, 1)).astype(np.float32)
    return fresh


def _factors(peak: Floats, readers: list[Floats]) -> Floats:
    """What each channel is divided by.

    A depthwise reader has a scale for each channel: the tensor can be made wholly even. A reader
    that sums channels has one scale for all, so tensor and weights share the unevenness.
    """
    share = np.where(peak > 0, peak / max(float(peak.max()), 1e-12), 1)
    if any(weight.shape[1] > 1 for weight in readers):
        heard = np.max([_by_input(weight) for weight in readers], axis=0)
        even = heard / max(float(heard.max()), 1e-12)
        share = np.sqrt(share / np.clip(even, 1 / _LARGEST, None))
        share /= share.max()
    factors: Floats = np.clip(share, 1 / _LARGEST, None).astype(np.float32)
    return factors


def _by_input(weight: Floats) -> Floats:
    """Largest magnitude of the weights that read each channel."""
    axes = (1, 2, 3) if weight.shape[1] == 1 else (0, 2, 3)
    found: Floats = np.abs(weight).max(axis=axes)
    return found


def _pairs(nodes: Mapping[str, Any], weights: Mapping[str, Any], outputs: set[str]) -> list[_Pair]:
    readers: dict[str, list[Any]] = {}
    uses: Counter[str] = Counter()
    for node in nodes.values():
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
            uses[tensor] += 1
    found = []
    for node in nodes.values():
        if not _is_own_convolution(node, weights, uses):
            continue
        tensor = node.output[0]
        while len(after := readers.get(tensor, [])) == 1 and after[0].op_type in HOMOGENEOUS:
            if tensor in outputs:
                break
            tensor = after[0].output[0]
        width = len(weights[node.input[1]])
        if after and tensor not in outputs and all(
            _is_own_convolution(reader, weights, uses)
            and reader.input[0] == tensor
            and _reads_all(reader, weights[reader.input[1]], width)
            for reader in after
        ):  # fmt: skip
            found.append(_Pair(node, tensor, after))
    return found


def _is_own_convolution(node: Any, weights: Mapping[str, Any], uses: Counter[str]) -> bool:
    return node.op_type == "Conv" and all(
        name in weights and uses[name] == 1 for name in node.input[1:]
    )


def _reads_all(node: Any, weight: Floats, width: int) -> bool:
    """Whether it is a plain convolution, or a depthwise one, of so many channels."""
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups == 1:
        return weight.ndim == 4 and weight.shape[1] == width and width > 1
    return weight.ndim == 4 and groups == width == len(weight) and weight.shape[1] == 1
