"""Channels: which channels of a network must be cut together.

A channel of a feature map is written by one or more layers (all that are added into a residual
stream), passes norms, activations and depthwise convolutions, and is read by others, perhaps at
another place (after a concatenation). Cutting it means cutting all of these. Torch-Pruning follows
the graph (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900);
nothing else in slimface knows of it.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimface.errors import TraceError
from slimface.model.network import Network
from slimface.model.widths import is_depthwise, is_resizable

Indices = npt.NDArray[np.intp]
Side = Literal["out", "in"]

PICTURE = "picture"
"""Name of the group of the three colours."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A layer in which the channels of a group have a place."""

    module: str
    """Name in ``named_modules()``."""

    side: Side
    """``out``: it writes the channels, or passes them on one by one (norms, depthwise
    convolutions). ``in``: it reads them and mixes them into others."""

    positions: Indices
    """Shape ``(size, k)``: where each channel of the group stands on that side. ``k`` exceeds 1
    where it stands several times, as in front of a linear layer that reads a flattened map."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Channels that can be cut one by one, but each only in all members at once."""

    name: str
    """The first layer that writes them."""

    size: int
    members: tuple[Member, ...]
    prunable: bool = True
    reason: str = ""
    """Why it cannot be cut; empty if it can."""

    idle: bool = False
    """Whether no prediction depends on one of its layers. Nothing but its use forbids cutting it:
    an importance would be the same for all channels."""


def channel_groups(network: Network) -> tuple[ChannelGroup, ...]:
    """Return all channel groups in the order of the layers, those that cannot be cut among them.

    Every channel of every layer that runs belongs to exactly one group on each of its sides.

    Raises:
        TraceError: The channels of an operation cannot be followed.
    """
    _check_parameters(network)
    traced = _Traced(network)
    try:
        graph = _followed(traced, network.trace_size)
        found = list(_walked(traced, graph))
    except _FAILURES as error:
        raise TraceError(
            f"The channels of {network.spec.name} cannot be followed: "
            f"{type(error).__name__}: {error}.\n"
            "Channel shuffles and indexing by channel are not understood; write the operation "
            "with convolutions, sums and concatenations, or leave the model unpruned."
        ) from error
    _check_complete(traced, found)
    named: dict[str, int] = defaultdict(int)
    groups = []
    for members in found:
        name = next(m.module for m in members if m.side == "out" and _is_writer(traced, m))
        named[name] += 1
        if named[name] > 1:
            name = f"{name}#{named[name]}"
        group = ChannelGroup(name, len(members[0].positions), members)
        reason = _obstacle(traced, group, network)
        idle = bool(_unused(traced, group))
        groups.append(replace(group, prunable=not reason, reason=reason, idle=idle))
    return tuple(groups)


# What Torch-Pruning raises where an operation is beyond it.
_FAILURES = (ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)

_Members = tuple[Member, ...]
_Places = dict[tuple[str, Side], dict[int, list[int]]]


class _Traced(nn.Module):
    """A copy of a network behind an imaginary layer that writes the picture's channels."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.picture = nn.Conv2d(3, 3, 1, bias=False)
        self.network = copy.deepcopy(network).cpu().float().eval()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in network.constant_names)
        for name, module in list(self.network.named_modules()):
            # One slope for all channels is no layer to cut, and Torch-Pruning stumbles over it.
            if isinstance(module, nn.PReLU) and module.num_parameters == 1:
                self.network.set_submodule(name, nn.LeakyReLU())
        self.names = {module: name for name, module in self.network.named_modules() if name}
        self.names[self.picture] = PICTURE
        self.ran: set[str] = set()
        """Layers that ran."""
        self.used: set[str] = {PICTURE}
        """Layers that some prediction depends on."""

    def layer(self, name: str) -> nn.Module:
        """Return a layer by its name in the network."""
        return self.picture if name == PICTURE else self.network.get_submodule(name)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the prediction maps, then the outputs of all modules, last first.

        A layer whose output nobody uses still runs, so the trace must know that it has to shrink
        with its input.
        """
        outputs: list[tuple[str, Any, Tensor]] = []

        def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                outputs.append((self.names[module], output.grad_fn, output))

        hooks = [module.register_forward_hook(keep) for module in self.names]
        try:
            maps = self.network.maps(self.picture(images))
        finally:
            for hook in hooks:
                hook.remove()
        used = _ancestors(maps)
        self.ran.update(name for name, _, _ in outputs)
        self.used.update(name for name, made_by, _ in outputs if made_by in used)
        return (*maps, *(output for _, _, output in reversed(outputs)))


def _ancestors(outputs: Iterable[Tensor]) -> set[Any]:
    """All steps of the calculation that led to these tensors."""
    seen: set[Any] = set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in seen:
            seen.add(step)
            waiting.extend(previous for previous, _ in step.next_functions)
    return seen


def _followed(traced: _Traced, size: tuple[int, int]) -> Any:
    import torch_pruning

    graph = torch_pruning.DependencyGraph()
    # Every argument is given: some defaults are shared between calls, and grow.
    with torch.enable_grad():
        graph.build_dependency(
            traced,
            example_inputs=torch.zeros(1, 3, *size),
            forward_fn=lambda model, images: model(images),
            output_transform=None,
            unwrapped_parameters=[],
            customized_pruners={},
            ignored_layers=[],
            ignored_params=[],
            verbose=False,
        )
    return graph


def _walked(traced: _Traced, graph: Any) -> Iterator[_Members]:
    """Start from every written channel that no earlier group has."""
    taken: dict[str, set[int]] = defaultdict(set)
    for module, name in sorted(traced.names.items(), key=lambda item: item[1] != PICTURE):
        if module not in graph.module2node or not _is_root(module):
            continue
        free = [i for i in range(module.weight.shape[0]) if i not in taken[name]]
        if not free:
            continue
        places = _places(traced, graph, module, free)
        if len(_routes(places, free)) > 1:
            places = _tied(traced, graph, module, free)
        for (other, side), by_channel in places.items():
            if side == "out":
                taken[other].update(i for where in by_channel.values() for i in where)
        yield from _uniform(places, free)


def _places(traced: _Traced, graph: Any, module: nn.Module, channels: list[int]) -> _Places:
    """Layer and side -> channel of ``module`` -> its positions there."""
    write = graph.get_pruner_of_module(module).prune_out_channels
    places: _Places = {}
    for item in graph.get_pruning_group(module, write, channels).items:
        layer = item.dep.target.module
        if not isinstance(layer, nn.Module) or layer not in traced.names:
            continue
        writes = graph.is_out_channel_pruning_fn(item.dep.handler) or _passes_on(layer)
        by_channel = places.setdefault((traced.names[layer], "out" if writes else "in"), {})
        for channel, position in zip(item.root_idxs, item.idxs, strict=True):
            if position not in by_channel.setdefault(channel, []):
                by_channel[channel].append(position)
    return places


def _tied(traced: _Traced, graph: Any, module: nn.Module, channels: list[int]) -> _Places:
    """As ``_places``, for channels some of which may be tied to each other.

    So they are where a map and what a depthwise convolution makes of it are concatenated and added
    to a stream. Asked for all channels at once, Torch-Pruning keeps one owner for each position;
    asked for each alone it names everything that must go along. Channels that must go along are
    one channel, known by the first of them.
    """
    home: tuple[str, Side] = (traced.names[module], "out")
    places: _Places = {}
    for channel in channels:
        alone = _places(traced, graph, module, [channel])
        first = min(alone[home][channel])
        for place, by_channel in alone.items():
            positions = places.setdefault(place, {}).setdefault(first, [])
            positions.extend(i for i in by_channel[channel] if i not in positions)
    return places


def _routes(places: _Places, channels: list[int]) -> dict[tuple[int, ...], list[int]]:
    """Channels by how many positions they have in each place."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for channel in channels:
        route = tuple(len(by_channel.get(channel, ())) for by_channel in places.values())
        if any(route):
            alike[route].append(channel)
    return alike


def _uniform(places: _Places, channels: list[int]) -> Iterator[_Members]:
    """Split channels that go to different layers, so that each member has a place for each."""
    for route, together in _routes(places, channels).items():
        yield tuple(
            Member(name, side, np.array([sorted(by_channel[c]) for c in together], dtype=np.intp))
            for ((name, side), by_channel), count in zip(places.items(), route, strict=True)
            if count
        )


def _is_root(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer)


def _passes_on(layer: nn.Module) -> bool:
    return is_depthwise(layer) or not isinstance(layer, _ConvNd | nn.Linear)


def _is_writer(traced: _Traced, member: Member) -> bool:
    return _is_root(traced.layer(member.module))


def _obstacle(traced: _Traced, group: ChannelGroup, network: Network) -> str:
    """Why a group cannot be cut, in words for people; empty if it can."""
    for member in group.members:
        name, layer = member.module, traced.layer(member.module)
        if name == PICTURE:
            return "these are the colours of the picture"
        if name in network.head_names and member.side == "out":
            return f"each output of {name} has a meaning"
        if not is_resizable(layer):
            return f"{name} is a {type(layer).__name__}, which cannot be given other widths"
        if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
            return f"{name} is a convolution in {layer.groups} groups of fixed width"
    unused = _unused(traced, group)
    if unused:
        return f"no prediction depends on {unused}"
    if group.size == 1:
        return "it is a single channel"
    return ""


def _unused(traced: _Traced, group: ChannelGroup) -> str:
    """The first layer of a group on which no prediction depends; empty if there is none."""
    unused = (m.module for m in group.members if m.side == "out" and m.module not in traced.used)
    return next(unused, "")


def _check_parameters(network: Network) -> None:
    """Refuse parameters of which nobody knows whether they have an entry for each channel."""
    for prefix, module in network.named_modules():
        if _is_known(module):
            continue
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if full not in network.constant_names:
                raise TraceError(
                    f"{full} belongs to no layer whose channels are understood.\n"
                    f"If it has no entry for each channel, add it to "
                    f"{type(network).__name__}.constant_names."
                )


def _is_known(module: nn.Module) -> bool:
    return is_resizable(module) or type(module).__module__.startswith("torch.nn.modules.")


def _check_complete(traced: _Traced, found: Iterable[_Members]) -> None:
    """Every channel of every layer that ran is in one group on each side, or the trace is wrong."""
    seen: dict[tuple[str, Side], list[int]] = defaultdict(list)
    for members in found:
        for member in members:
            seen[member.module, member.side].extend(member.positions.flatten().tolist())
    for name in sorted(traced.ran - {PICTURE}):
        layer = traced.layer(name)
        for side, width in _widths(layer).items():
            if sorted(seen[name, side]) != list(range(width)):
                raise TraceError(
                    f"{len(set(seen[name, side]))} of {width} channels at the "
                    f"{'output' if side == 'out' else 'input'} of {name} could be followed, some "
                    "perhaps twice.\nIt is reached by an operation on channels that is not "
                    "understood; write that with convolutions, sums and concatenations."
                )


def _widths(layer: nn.Module) -> dict[Side, int]:
    """Channels at each side of a layer that has to be in a group there."""
    if not is_resizable(layer) or not isinstance(layer.weight, Tensor):
        return {}
    if _passes_on(layer):
        return {"out": len(layer.weight)}
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        return {"out": layer.out_channels}
    return {"out": layer.weight.shape[0], "in": layer.weight.shape[1]}
