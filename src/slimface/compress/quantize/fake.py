"""Fake quantisation: a float network whose layers see and use numbers that eight bits can hold.

This is the module seam of a training. Nothing is added to the state of the network: its weights
stay float and get the gradient as if nothing had been rounded (the straight-through estimator), so
they are saved, resumed and exported as ever. Scales of weights follow the weights; the ranges of
activations are those of the calibration, and the statistics of batch norms stand still.

A scale for each output channel makes rounding blind to what a batch norm will multiply a filter by
when it is folded: both give the same whole numbers. So norms need not be folded, a norm of weight
zero breaks nothing, and neither does a batch of one.

Source: Jacob et al., CVPR 2018, arXiv:1712.05877; Krishnamoorthi, 2018, arXiv:1806.08342; Bengio et
al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, arXiv:1308.3432.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.compress.quantize.calibrate import Seen
from slimface.compress.quantize.ranges import LEVELS, STEPS, Method, range_of, width_of_steps
from slimface.core.faces import Floats
from slimface.errors import UsageError
from slimface.model.network import Network


class Step(NamedTuple):
    """How activations are rounded: ``scale * (0 … 255 - zero)``."""

    scale: float
    zero: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return what eight bits make of ``x``; its gradient stops where it is cut off."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, LEVELS - 1)


def step_of(low: float, high: float) -> Step:
    """Return the rounding of a range that zero lies in."""
    scale = max((high - low) / (LEVELS - 1), 1e-12)
    return Step(scale, int(min(max(round(-low / scale), 0), LEVELS - 1)))


def rounded_weight(weight: Tensor, bits: int = 8) -> Tensor:
    """Return weights as a scale for each output channel, the first axis, holds them."""
    low, high = STEPS[bits]
    peak = weight.detach().abs().flatten(1).amax(dim=1)
    scale = torch.where(peak > 0, peak, 1).float() * width_of_steps(bits)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, low, high)


class _Rounded:
    """The forward pass of one layer in fake eight bits. Copies of the network copy it with it."""

    def __init__(self, layer: nn.Module, given: Step, answer: Step | None, bits: int) -> None:
        self.layer: Any = layer
        self.bits = bits
        self.given = given
        self.answer = answer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight = rounded_weight(layer.weight, self.bits)
        x = self.given(x)
        if isinstance(layer, nn.Conv2d):
            x = layer._conv_forward(x, weight, layer.bias)
        else:
            x = functional.linear(x, weight, layer.bias)
        return x if self.answer is None else self.answer(x)


class _Still:
    """``train`` of a batch norm that goes on with the statistics it has."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, mode: bool = True) -> nn.Module:
        self.norm.training = False
        return self.norm


def fake_quantize_(
    network: Network, inputs: Sequence[Floats], *, ranges: Method, bits: int = 8
) -> int:
    """Let a network compute in fake eight bits, in training and in evaluation.

    Convolutions and linear layers round what they are given and their weights, the heads what they
    answer, too. All else (PReLU, sums) stays in float32, as in the exported file.

    Args:
        network: Changed in place; its tensors stay as they are, and so does what is saved of it.
        inputs: What it is calibrated on, each ``(b, 3, height, width)``.
        ranges: How the range of an activation is chosen.
        bits: Of weights; what layers put out has eight.

    Returns:
        The number of layers.

    Raises:
        UsageError: No layer can be quantised, or an activation is no number.
    """
    layers: dict[str, nn.Module] = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    if not layers:
        raise UsageError(
            f"{network.spec.name} has no convolution and no linear layer to quantise.\n"
            "Leave the qat step out."
        )
    before, after = _seen(network, layers, inputs)
    for name, layer in layers.items():
        if name not in before:
            continue  # a part that no picture reaches
        is_head = name in network.head_names
        answer = step_of(*range_of(after[name], ranges)) if is_head else None
        given = step_of(*range_of(before[name], ranges))
        layer.forward = _Rounded(layer, given, answer, bits)
    for norm in network.modules():
        if isinstance(norm, _BatchNorm):
            norm.train = _Still(norm)  # type: ignore[method-assign, assignment]
    return len(before)


@torch.no_grad()
def _seen(
    network: Network, layers: dict[str, nn.Module], inputs: Sequence[Floats]
) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """What each layer was given, and what each head answered."""
    given: dict[str, Seen] = {}
    answered: dict[str, Seen] = {}

    def note(name: str) -> Any:
        def hook(_layer: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> None:
            for seen, tensor in ((given, x[0]), (answered, y)):
                values = tensor.cpu().numpy()
                if not np.isfinite(values).all():
                    raise UsageError(
                        f"At {name} a calibration picture gives values that are infinite or no "
                        "numbers.\nThe weights are damaged; use an earlier checkpoint."
                    )
                if values.size:
                    seen.setdefault(name, Seen()).add(values)

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    try:
        for images in inputs:
            network(torch.from_numpy(images).to(device))
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    return given, answered
