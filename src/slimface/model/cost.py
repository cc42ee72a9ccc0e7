"""Cost: parameters and MACs of a network for any widths of its channel groups, without building.

Both are sums of products of widths: a convolution has as many weights as outputs x inputs x kernel.
So thousands of allocations can be tried in the time of one cut, and the figures are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard, overload

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.conv import _ConvNd

from slimface.model.channels import ChannelGroup, Indices
from slimface.model.network import Network
from slimface.model.profile import profile
from slimface.model.widths import is_depthwise

Floats = npt.NDArray[np.float64]
Unit = Literal["params", "macs"]
Measured = Literal["ms", "size"]
Meter = Callable[[Floats], Floats]
"""Widths ``(..., groups)`` -> what is expected to be measured, ``(...)``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """``constant + sum over layers of (product * outputs * inputs + single * outputs)``."""

    constant: float
    product: Floats
    single: Floats
    corner: Floats
    """Shape ``(groups,)``: where a group is on both sides of a layer, its slopes count twice."""


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """What a network costs as a function of the widths of the groups that can be cut.

    Widths are arrays ``(groups,)`` in the order of ``names``. Numbers are whole and exact in
    double precision (below 2 ** 53).
    """

    names: tuple[str, ...]
    sizes: Indices
    """Widths before any cut."""

    height_px: int
    width_px: int
    layers: tuple[str, ...]
    """Names of the layers whose widths follow from those of the groups."""

    _outputs: Floats
    """Shape ``(layers, groups)``: outputs of a layer for each channel of a group."""

    _inputs: Floats
    _fixed_outputs: Floats
    """Shape ``(layers,)``: those that no cut changes."""

    _fixed_inputs: Floats
    _sums: dict[str, _Sum]
    meters: Mapping[Measured, Meter] = field(default_factory=dict)
    """Costs that do not follow from widths alone, where somebody has measured them."""

    @overload
    def count(self, unit: Unit, widths: npt.ArrayLike) -> int: ...

    @overload
    def count(self, unit: Measured, widths: npt.ArrayLike) -> float: ...

    def count(self, unit: Unit | Measured, widths: npt.ArrayLike) -> float:
        """Return the parameters, the MACs of one picture, or what a meter says, at these widths."""
        if unit == "ms" or unit == "size":
            return float(self.meters[unit](np.asarray(widths, dtype=np.float64)))
        total = self._sums[unit]
        outputs, inputs = self.layer_widths(widths)
        return round(
            total.constant + float(total.product @ (outputs * inputs) + total.single @ outputs)
        )

    def savings(self, unit: Unit | Measured, widths: npt.ArrayLike, drop: npt.ArrayLike) -> Floats:
        """Return, for each group, what is saved if it alone loses ``drop`` more channels.

        Args:
            unit: What to save.
            widths: Shape ``(groups,)``.
            drop: Shape ``(groups,)``.
        """
        lost = np.asarray(drop, dtype=np.float64)
        if unit == "ms" or unit == "size":
            meter, now = self.meters[unit], np.asarray(widths, dtype=np.float64)
            return meter(now) - meter(now - np.diag(lost))
        total = self._sums[unit]
        outputs, inputs = self.layer_widths(widths)
        slope = self._inputs.T @ (total.product * outputs)
        slope += self._outputs.T @ (total.product * inputs + total.single)
        return np.asarray(lost * slope - lost**2 * total.corner)

    def layer_widths(self, widths: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return outputs and inputs of ``layers``, each ``(..., layers)``.

        Depthwise layers, norms and the like have as many inputs as outputs, given here as 1.

        Args:
            widths: Shape ``(..., groups)``.
        """
        widths = np.asarray(widths, dtype=np.float64)
        return (
            self._fixed_outputs + widths @ self._outputs.T,
            self._fixed_inputs + widths @ self._inputs.T,
        )


def cost_model(
    network: Network, groups: Sequence[ChannelGroup], height: int, width: int
) -> CostModel:
    """Find out how the cost of a network depends on the widths of its groups.

    Args:
        network: As it is before the cut.
        groups: ``channel_groups(network)``.
        height: Of the picture that MACs are counted for.
        width: Likewise.
    """
    counted = profile(network, height, width)
    macs = {layer.name: layer.macs for layer in counted.layers}
    free = [group for group in groups if group.prunable]
    places: dict[str, dict[str, Floats]] = {}
    for i, group in enumerate(free):
        for member in group.members:
            sides = places.setdefault(
                member.module, {"out": np.zeros(len(free)), "in": np.zeros(len(free))}
            )
            sides[member.side][i] += member.positions.shape[1]
    layers = [network.get_submodule(name) for name in places]
    sizes = np.array([group.size for group in free], dtype=np.intp)
    outputs = np.array([sides["out"] for sides in places.values()]).reshape(-1, len(free))
    inputs = np.array([sides["in"] for sides in places.values()]).reshape(-1, len(free))
    all_out = np.array([_outputs(layer) for layer in layers], dtype=np.float64)
    all_in = np.array([_inputs(layer) for layer in layers], dtype=np.float64)
    weights = np.array([_mixing(layer) for layer in layers], dtype=np.float64)
    own = np.array([sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers])
    work = np.array([macs.get(name, 0) for name in places], dtype=np.float64)
    pairs = all_out * all_in

    def make(constant: float, product: Floats, single: Floats) -> _Sum:
        return _Sum(constant, product, single, corner=product @ (outputs * inputs))

    return CostModel(
        names=tuple(group.name for group in free),
        sizes=sizes,
        height_px=height,
        width_px=width,
        layers=tuple(places),
        _outputs=outputs,
        _inputs=inputs,
        _fixed_outputs=all_out - outputs @ sizes,
        _fixed_inputs=all_in - inputs @ sizes,
        _sums={
            "params": make(
                counted.parameters - own.sum(), weights / pairs, (own - weights) / all_out
            ),
            "macs": make(counted.macs - work.sum(), work / pairs, np.zeros(len(layers))),
        },
    )


def _outputs(layer: nn.Module) -> int:
    own = next(layer.parameters(recurse=False), None)
    return 1 if own is None else len(own)


def _inputs(layer: nn.Module) -> int:
    """Inputs that every output reads; 1 where outputs and inputs go in pairs."""
    return layer.weight.shape[1] if _mixes(layer) else 1


def _mixing(layer: nn.Module) -> int:
    """Parameters that are as many as outputs x inputs; biases and norms are as many as outputs."""
    return layer.weight.numel() if _mixes(layer) else 0


def _mixes(layer: nn.Module) -> TypeGuard[_ConvNd | nn.Linear]:
    return isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer)
