"""Fake quantisation: a float network that rounds what its file of eight bits will round.

Rounded are the answers of some calls of its forward pass and the weights of some of its layers, as
a QDQ graph says, so a training sees what the file will compute. Nothing is added to the state of
the network: its weights stay float and get the gradient as if nothing had been rounded (the
straight-through estimator), so they are saved, resumed and exported as ever. Scales of weights
follow the weights; the ranges of activations are the file's, and the statistics of batch norms
stand still.

A scale for each output channel makes rounding blind to what a batch norm multiplies a filter by
when it is folded, so a norm of weight zero breaks nothing, and neither does a batch of one.

Source: Jacob et al., CVPR 2018, arXiv:1712.05877; Krishnamoorthi, 2018, arXiv:1806.08342; Bengio et
al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, arXiv:1308.3432.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.compress.quantize.calls import (
    WEIGHTED,
    Asked,
    Call,
    Calls,
    changing,
    layer_of,
    places,
)
from slimface.compress.quantize.choice import Chosen
from slimface.compress.quantize.grid import Step, steps_of
from slimface.compress.quantize.qdq import Graph, short
from slimface.compress.quantize.ranges import LEVELS, STEPS, width_of_steps
from slimface.core.faces import Floats
from slimface.model.network import Network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Roundings:
    """Where a network rounds: numbers of the calls of its forward pass."""

    calls: int
    """That a forward pass has."""

    images: Step | None
    """How what the network is given is rounded."""

    answers: Mapping[int, Step]
    """Calls whose answer is rounded."""

    layers: Mapping[int, int]
    """Calls whose weights are rounded, and to how many bits."""


def rounded(x: Tensor, step: Step) -> Tensor:
    """Return what eight bits make of ``x``; its gradient stops where it is cut off."""
    return torch.fake_quantize_per_tensor_affine(x, step.scale, step.zero, 0, LEVELS - 1)


def rounded_weight(weight: Tensor, bits: int = 8, axis: int = 0) -> Tensor:
    """Return weights as a scale for each output channel, those along ``axis``, holds them."""
    low, high = STEPS[bits]
    others = [i for i in range(weight.ndim) if i != axis]
    peak = weight.detach().abs().amax(dim=others)
    scale = torch.where(peak > 0, peak, 1).float() * width_of_steps(bits)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, low, high)


class _Rounder(Calls):
    """Rounds where it is told to."""

    def __init__(self, roundings: Roundings) -> None:
        super().__init__()
        self.roundings = roundings

    def given(self, call: Asked) -> tuple[Any, ...]:
        bits = self.roundings.layers.get(self.count)
        if bits is None or call.name not in WEIGHTED:
            return call.args
        x, weight, *others = call.args
        return x, rounded_weight(weight, bits, WEIGHTED[call.name]), *others

    def answered(self, call: Asked, answer: Tensor) -> Tensor:
        step = self.roundings.answers.get(self.count)
        return answer if step is None else rounded(answer, step)


class _Rounding:
    """The forward pass of a network that rounds. Copies of the network copy it with it."""

    def __init__(self, network: Network, roundings: Roundings) -> None:
        self.network = network
        self.roundings = roundings

    def __call__(self, images: Tensor) -> Any:
        if self.roundings.images is not None:
            images = rounded(images, self.roundings.images)
        with _Rounder(self.roundings) as rounder:
            answer = type(self.network).forward(self.network, images)
        if rounder.count != self.roundings.calls:
            raise changing(self.network)
        return answer


class _Still:
    """``train`` of a batch norm that goes on with the statistics it has."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, mode: bool = True) -> nn.Module:
        self.norm.training = False
        return self.norm


def fake_quantize_(network: Network, roundings: Roundings) -> None:
    """Let a network round, in training and in evaluation, and its norms stand still.

    Args:
        network: Changed in place; its tensors stay as they are, and so does what is saved of it.
        roundings: Where, and how.
    """
    network.forward = _Rounding(network, roundings)  # type: ignore[method-assign]
    for norm in network.modules():
        if isinstance(norm, _BatchNorm):
            norm.train = _Still(norm)  # type: ignore[method-assign, assignment]


def roundings_of(
    graph: Graph, chosen: Chosen, calls: Sequence[Call], inputs: Sequence[Floats]
) -> Roundings:
    """Return where a network rounds what its file rounds.

    Args:
        graph: What was exported from the network.
        chosen: The file.
        calls: Of the network.
        inputs: What they were made of.
    """
    steps = steps_of(chosen.made)
    given = graph.model.graph.input[0].name
    images = steps.pop(given, None)
    outputs = {graph.nodes[name].output[0]: name for name in chosen.layers}
    wanted = [tensor for tensor in graph.makers if tensor in steps or tensor in outputs]
    at = places(graph.values(wanted, inputs), calls)
    layers = {tensor: layer_of(at[tensor], calls) for tensor in outputs if tensor in at}
    absent = [name for tensor, name in outputs.items() if layers.get(tensor) is None]
    absent += [graph.makers[tensor] for tensor in steps if tensor not in at]
    if absent:
        log.warning(
            "%d of %d roundings of the file have no place in the network and are not trained with: "
            "%s",
            len(absent),
            len(outputs) + len(steps),
            ", ".join(map(short, absent[:5])),
        )
    return Roundings(
        calls=len(calls),
        images=images,
        answers={at[tensor]: step for tensor, step in steps.items() if tensor in at},
        layers={
            number: chosen.how.weight_bits(outputs[tensor])
            for tensor, number in layers.items()
            if number is not None
        },
    )
