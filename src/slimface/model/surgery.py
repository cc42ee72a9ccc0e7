"""Surgery: remove channels for good, silence them, zero filters, fold batch norms.

Zeroed is not removed: a zeroed filter still sends the constant of its batch norm on. Removal is
the same as silence at the layers that read a channel, and every cut is checked against that.
"""

import copy
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from slimface.errors import TraceError, UsageError
from slimface.model.channels import ChannelGroup, Indices, channel_groups
from slimface.model.network import Network
from slimface.model.widths import replace_tensor_

Keep = Mapping[str, npt.ArrayLike]
"""Name of a group -> its channels that stay, in any order. Groups without an entry stay whole."""

_TOLERANCE = 1e-3

N = TypeVar("N", bound=Network)


class _Cut(NamedTuple):
    """A group and its channels that go."""

    group: ChannelGroup
    gone: Indices


def remove_channels(network: N, keep: Keep, *, groups: tuple[ChannelGroup, ...] | None = None) -> N:
    """Return a new network without the channels that are not kept; ``network`` stays as it was.

    Law: its outputs are those of ``network`` with the same channels silenced. This is checked on
    noise each time, so a wrong trace cannot pass unnoticed. Make optimizers after surgery: the
    parameters are new.

    Args:
        network: What to cut.
        keep: The channels that stay.
        groups: ``channel_groups(network)``, where the caller has it already.

    Raises:
        UsageError: ``keep`` names no group, a group that cannot be cut, or no channel at all.
        TraceError: The channels of the network cannot be followed.
    """
    narrow = copy.deepcopy(network)
    cuts = _cuts(network, keep, groups)
    gone = _gone(narrow, cuts)
    for (name, side), positions in gone.items():
        layer = narrow.get_submodule(name)
        if side == "in":
            _cut_(layer, "weight", 1, positions)
        else:
            for tensor in [*layer._parameters, *layer._buffers]:
                _cut_(layer, tensor, 0, positions)
    if cuts:
        _check(network, narrow, cuts)
    return narrow


def silence_(
    network: Network, keep: Keep, *, groups: tuple[ChannelGroup, ...] | None = None
) -> Callable[[], None]:
    """Let no layer hear the channels that are not kept, by masks in front of the readers.

    Args:
        network: Changed in place; its parameters stay as they are.
        keep: The channels that stay audible.
        groups: ``channel_groups(network)``, where the caller has it already.

    Returns:
        A function that takes the masks off again.

    Raises:
        UsageError: As for ``remove_channels``.
    """
    return _silence_(network, _cuts(network, keep, groups))


def zero_filters_(
    network: Network,
    keep: Keep,
    *,
    norms: bool = False,
    groups: tuple[ChannelGroup, ...] | None = None,
) -> None:
    """Set the filters that write the channels which are not kept to zero. They may grow back.

    Source: He et al., "Soft Filter Pruning", IJCAI 2018, arXiv:1808.06866.

    Args:
        network: Changed in place.
        keep: The channels whose filters stay.
        norms: Zero the scale and shift of their batch norms too, so that nothing is sent on.
        groups: ``channel_groups(network)``, where the caller has it already.

    Raises:
        UsageError: As for ``remove_channels``.
    """
    with torch.no_grad():
        for (name, side), positions in _gone(network, _cuts(network, keep, groups)).items():
            layer = network.get_submodule(name)
            writes = isinstance(layer, _ConvNd | nn.Linear)
            if side == "out" and (writes or (norms and isinstance(layer, _BatchNorm))):
                for parameter in layer.parameters(recurse=False):
                    parameter[torch.as_tensor(positions)] = 0


def fold_batch_norms(network: N) -> N:
    """Return a network for inference whose batch norms are part of the convolutions before them.

    It has no spec's keys any more, so it is to be exported or run, not saved. Norms that do not
    directly follow a convolution stay.

    Raises:
        TraceError: The outputs would change, because somebody else reads what a norm normalises.
    """
    folded = copy.deepcopy(network).eval()
    for layer, norm in _pairs(folded):
        _fold_(layer, norm)
        # The norms of timm carry their activation inside, which stays.
        inside = list(norm.children())
        _replace_module_(folded, norm, nn.Sequential(*inside) if inside else nn.Identity())
    _compare(
        folded,
        copy.deepcopy(network).eval(),
        complaint="Folding the batch norms changes the outputs",
    )
    return folded


def _cuts(
    network: Network, keep: Keep, groups: tuple[ChannelGroup, ...] | None
) -> tuple[_Cut, ...]:
    """Check what the caller wants, and turn it round: the channels that go."""
    if not keep:
        return ()
    known = {group.name: group for group in groups or channel_groups(network)}
    cuts = []
    for name, channels in keep.items():
        group = known.get(name)
        if group is None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"{network.spec.name} has no channel group {name!r}.\n{hint}"
                "channel_groups(network) lists them."
            )
        kept = np.unique(np.asarray(channels, dtype=np.intp))
        if not len(kept) or kept[0] < 0 or kept[-1] >= group.size:
            raise UsageError(
                f"Channels {np.asarray(channels).tolist()} of {name} cannot be what stays of its "
                f"{group.size}.\nKeep at least one, counted from 0 to {group.size - 1}."
            )
        gone = np.setdiff1d(np.arange(group.size), kept)
        if len(gone) and not group.prunable:
            raise UsageError(
                f"{name} cannot be cut: {group.reason}.\n"
                "Leave it out; only groups with prunable=True can lose channels."
            )
        if len(gone):
            cuts.append(_Cut(group, gone))
    return tuple(cuts)


def _gone(network: Network, cuts: tuple[_Cut, ...]) -> dict[tuple[str, str], Indices]:
    """Layer and side -> positions that go, from all groups together."""
    gone: dict[tuple[str, str], list[Indices]] = {}
    for cut in cuts:
        for member in cut.group.members:
            positions = member.positions[cut.gone].ravel()
            gone.setdefault((member.module, member.side), []).append(positions)
    return {place: np.unique(np.concatenate(parts)) for place, parts in gone.items()}


def _cut_(layer: nn.Module, name: str, dimension: int, positions: Indices) -> None:
    tensor = getattr(layer, name)
    # Counters and other scalars have no channels.
    if isinstance(tensor, Tensor) and tensor.dim() > dimension:
        stay = np.setdiff1d(np.arange(tensor.shape[dimension]), positions)
        index = torch.as_tensor(stay, device=tensor.device)
        replace_tensor_(layer, name, tensor.detach().index_select(dimension, index))


def _silence_(network: Network, cuts: tuple[_Cut, ...]) -> Callable[[], None]:
    handles = []
    for (name, side), positions in _gone(network, cuts).items():
        if side == "in":
            layer = network.get_submodule(name)
            handles.append(layer.register_forward_pre_hook(_mask(layer, positions)))

    def restore() -> None:
        for handle in handles:
            handle.remove()

    return restore


def _mask(layer: nn.Module, positions: Indices) -> Callable[..., Any]:
    dimension = -1 if isinstance(layer, nn.Linear) else 1

    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        index = torch.as_tensor(positions, device=inputs[0].device)
        return (inputs[0].index_fill(dimension, index, 0), *inputs[1:])

    return hook


def _check(network: Network, narrow: Network, cuts: tuple[_Cut, ...]) -> None:
    silent = copy.deepcopy(network)
    _silence_(silent, cuts)
    _compare(
        narrow,
        silent,
        complaint="Removing the channels is not the same as silencing them, so the trace is wrong",
    )


def _compare(changed: Network, reference: Network, *, complaint: str) -> None:
    """Let both see the same noise.

    Raises:
        TraceError: They disagree, or one of them cannot run.
    """
    parameter = next(reference.parameters())
    generator = torch.Generator().manual_seed(0)
    images = 60 * torch.randn((1, 3, *reference.trace_size), generator=generator)
    images = images.to(parameter)
    training = changed.training, reference.training
    try:
        with torch.inference_mode():
            expected = reference.eval().maps(images)
            found = changed.eval().maps(images)
    except RuntimeError as error:
        raise TraceError(
            f"{complaint}: {error}.\n"
            "Report this model's architecture; until then leave it unpruned."
        ) from error
    finally:
        changed.train(training[0])
        reference.train(training[1])
    for one, other in zip(found, expected, strict=True):
        if not torch.isfinite(other).all():
            raise TraceError(
                f"{reference.spec.name} answers noise with infinite or undefined numbers, so its "
                "surgery cannot be checked.\nIts weights are damaged; train or load it again."
            )
        drift = float((one - other).abs().max() / other.abs().max().clamp(min=1))
        if one.shape != other.shape or drift > _TOLERANCE:
            raise TraceError(
                f"{complaint}: outputs differ by {drift:.1e} of their range.\n"
                "Report this model's architecture; until then leave it unpruned."
            )


def _pairs(network: Network) -> list[tuple[_ConvNd, _BatchNorm]]:
    """Convolutions and the batch norms that take their outputs, each the other's only one."""
    written: list[tuple[Tensor, _ConvNd]] = []
    met: list[tuple[_ConvNd | None, _BatchNorm]] = []

    def write(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(layer, _ConvNd)
        written.append((output, layer))

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        source = next((layer for output, layer in reversed(written) if output is inputs[0]), None)
        met.append((source, norm))

    hooks = []
    for module in network.modules():
        if isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd):
            hooks.append(module.register_forward_hook(write))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(take))
    reference = next(network.parameters())
    with torch.inference_mode():
        network.maps(torch.zeros(1, 3, *network.trace_size).to(reference))
    for hook in hooks:
        hook.remove()
    pairs = dict.fromkeys((layer, norm) for layer, norm in met if layer is not None)
    layers = [layer for layer, _ in pairs]
    norms = [norm for _, norm in met]
    lonely = {norm for layer, norm in met if layer is None}
    runs = {layer: sum(other is layer for _, other in written) for layer in layers}
    return [
        (layer, norm)
        for layer, norm in pairs
        if layers.count(layer) == 1 and norm not in lonely and norms.count(norm) == runs[layer]
    ]


def _fold_(layer: _ConvNd, norm: _BatchNorm) -> None:
    """Scale the filters, and shift their bias, by what the norm does.

    In double precision, since the statistics of published weights span many orders of magnitude.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, arXiv:1712.05877, equation 14.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach().double()
    shift = (bias - norm.running_mean.double()) * scale
    if norm.affine:
        shift = shift + norm.bias.detach().double()
    weight = layer.weight.detach()
    scaled = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    layer.weight = nn.Parameter(scaled.to(weight))
    layer.bias = nn.Parameter(shift.to(weight))


def _replace_module_(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
