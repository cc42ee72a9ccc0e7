"""Silence: make readers deaf to channels without changing what they put out.

All of this happens on a working copy in double precision. Afterwards nobody hears the channels,
and ``model.surgery.remove_channels`` can take them away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimface.compress.shrink.carriers import Block, choose_carriers, shares
from slimface.compress.shrink.constants import Observation, Still, observe
from slimface.model.channels import ChannelGroup, Member
from slimface.model.network import Network
from slimface.model.widths import is_depthwise


@dataclass(slots=True)
class Silenced:
    """Which channels of each group nobody hears any more."""

    gone: dict[str, Tensor] = field(default_factory=dict)
    """Group -> shape ``(size,)``, bool."""

    carriers: dict[str, list[int]] = field(default_factory=dict)
    """Group -> channels that stay to stand for others or themselves."""


def silence_constants_(
    work: Network, groups: Sequence[ChannelGroup], *, borders: bool = True
) -> Silenced:
    """Find the channels whose content no picture changes, and move what they say elsewhere.

    Args:
        work: Changed in place; in evaluation mode and double precision, on the processor.
        groups: Its channel groups.
        borders: Whether zero-padded borders must stay exact. If not, all goes into biases and
            batch norms where there are any.
    """
    found = Silenced({group.name: torch.zeros(group.size, dtype=torch.bool) for group in groups})
    changed = True
    with torch.no_grad():
        while changed:
            observation = observe(work, borders=borders)
            audible = _audible(work, groups)
            changed = False
            for group in groups:
                if is_cuttable(group):
                    changed |= _silence_group_(
                        work, group, found, observation, audible[group.name], borders=borders
                    )
    return found


def is_cuttable(group: ChannelGroup) -> bool:
    """Whether channels of a group may go where they make no difference."""
    return group.prunable or (group.idle and group.size > 1)


def is_writer(layer: nn.Module) -> bool:
    """Whether a layer makes channels of its own, not one from each that it gets."""
    return isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer)


def _silence_group_(
    work: Network,
    group: ChannelGroup,
    found: Silenced,
    observation: Observation,
    audible: Tensor,
    *,
    borders: bool,
) -> bool:
    """Silence what can be silenced; return whether anything changed."""
    readers = [_Reader(work, member, observation, borders) for member in _readers(group)]
    free = torch.full_like(audible, bool(readers))
    for reader in readers:
        free &= reader.still | ~reader.hears
    free = (free | ~audible) & ~found.gone[group.name]
    candidates = free.nonzero()[:, 0].tolist()
    if not candidates:
        return False
    for reader in readers:
        # Who is not audible is not carried either, whatever weights are left for it.
        reader.deafen_(~audible)
    blocks = [reader.block(candidates) for reader in readers]
    chosen = [candidates[i] for i in choose_carriers(blocks, len(candidates))]
    if not chosen and len(candidates) + int(found.gone[group.name].sum()) == group.size:
        # A layer without channels cannot be.
        chosen = candidates[-1:]
    found.carriers[group.name] = chosen
    gone = [channel for channel in candidates if channel not in chosen]
    if not gone:
        return False
    for reader, block in zip(readers, blocks, strict=True):
        reader.absorb_(block, candidates, gone, chosen)
    for member in group.members:
        layer = work.get_submodule(member.module)
        if member.side == "out" and is_writer(layer):
            layer.weight[torch.as_tensor(member.positions[gone].ravel())] = 0  # type: ignore[operator]
    found.gone[group.name][gone] = True
    return True


def _readers(group: ChannelGroup) -> Iterable[Member]:
    return (member for member in group.members if member.side == "in")


class _Reader:
    """A layer that mixes the channels of a group into others."""

    def __init__(
        self, work: Network, member: Member, observation: Observation, borders: bool
    ) -> None:
        layer = work.get_submodule(member.module)
        assert isinstance(layer, _ConvNd | nn.Linear)
        self._layer = layer
        self._norm: _BatchNorm | None = None
        if member.module in observation.norms:
            norm = work.get_submodule(observation.norms[member.module])
            assert isinstance(norm, _BatchNorm)
            self._norm = norm
        self._positions = torch.as_tensor(member.positions)
        self._inputs = observation.seen.get(member.module, [])
        pads = isinstance(layer, _ConvNd) and layer.padding not in (0, (0, 0), "valid")
        self._takes_constant = (layer.bias is not None or self._norm is not None) and not (
            pads and borders
        )
        weight = layer.weight.detach()
        self.hears = (weight != 0).transpose(0, 1).flatten(1).any(dim=1)[self._positions].any(dim=1)
        self.still = torch.full((len(self._positions),), self._positions.shape[1] == 1)
        for still in self._inputs:
            self.still &= still.known[self._positions[:, 0]]

    def deafen_(self, channels: Tensor) -> None:
        """Forget the weights for channels that make no difference."""
        self._layer.weight[:, self._positions[channels].flatten()] = 0
        self.hears &= ~channels

    def block(self, candidates: Sequence[int]) -> Block:
        """What it hears of these channels, over all the times it runs."""
        columns = [self._rows(still, candidates) for still in self._inputs]
        rows = torch.cat(columns, dim=1) if columns else torch.zeros(len(candidates), 1).double()
        rows[~self.still[list(candidates)]] = 0
        return Block(
            rows=torch.unique(rows, dim=1),
            heard=self.hears[list(candidates)],
            takes_constant=self._takes_constant,
        )

    def _rows(self, still: Still, candidates: Sequence[int]) -> Tensor:
        return still.rows[self._positions[list(candidates), 0]]

    def absorb_(
        self, block: Block, candidates: Sequence[int], gone: Sequence[int], chosen: Sequence[int]
    ) -> None:
        """Move the weights for channels that go to the carriers, and what is left to the bias."""
        index = {channel: i for i, channel in enumerate(candidates)}
        heard = [c for c in gone if self.hears[c]]
        if not heard:
            return
        weight = self._layer.weight
        parts, constant = shares(block, [index[c] for c in chosen])
        rows = [index[c] for c in heard]
        sources = self._positions[heard, 0]
        moved = weight[:, sources]
        if chosen:
            targets = self._positions[list(chosen), 0]
            weight[:, targets] += torch.einsum("oi...,ic->oc...", moved, parts[rows])
        if block.takes_constant:
            self._add_(moved.flatten(2).sum(dim=2) @ constant[rows] if moved.dim() > 2
                       else moved @ constant[rows])  # fmt: skip
        weight[:, sources] = 0

    def _add_(self, amount: Tensor) -> None:
        """Add to the outputs. A batch norm's mean is the place that leaves training unchanged."""
        if self._norm is not None:
            assert self._norm.running_mean is not None
            self._norm.running_mean -= amount
        else:
            assert self._layer.bias is not None
            self._layer.bias += amount


def _audible(work: Network, groups: Sequence[ChannelGroup]) -> Mapping[str, Tensor]:
    """Return for each group which channels some prediction hears, through any layers."""
    writers = {
        name: layer
        for name, layer in work.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear) and is_writer(layer)
    }
    audible = {group.name: torch.full((group.size,), _is_end(work, group)) for group in groups}
    of_output: dict[str, Tensor] = {}
    for group in groups:
        for member in group.members:
            if member.side == "out" and member.module in writers:
                width = len(writers[member.module].weight)
                of_output.setdefault(member.module, torch.zeros(width, dtype=torch.bool))
    growing = True
    while growing:
        growing = False
        for group in groups:
            for member in group.members:
                if member.side == "out" and member.module in of_output:
                    heard = audible[group.name].unsqueeze(1).expand(member.positions.shape)
                    of_output[member.module][torch.as_tensor(member.positions)] = heard
        for group in groups:
            before = int(audible[group.name].sum())
            for member in _readers(group):
                alive = writers[member.module].weight[of_output[member.module]]
                hears = (alive != 0).transpose(0, 1).flatten(1).any(dim=1)
                audible[group.name] |= hears[torch.as_tensor(member.positions)].any(dim=1)
            growing |= int(audible[group.name].sum()) > before
    return audible


def _is_end(work: Network, group: ChannelGroup) -> bool:
    """Whether all channels count: predictions, and what is read in ways not understood here."""
    if any(m.side == "out" and m.module in work.head_names for m in group.members):
        return True
    unread = not any(True for _ in _readers(group))
    return not group.idle and (unread or not group.prunable)
