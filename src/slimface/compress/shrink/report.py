"""What shrinking did: how much went, what had to stay, and why."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from slimface.compress.shrink.silence import Silenced, is_cuttable, is_writer
from slimface.core.value import Value
from slimface.model.channels import ChannelGroup
from slimface.model.network import Network
from slimface.model.profile import Profile
from slimface.model.widths import is_depthwise

_NAMED = 2
"""So many layers are named in a reason; the others are counted."""


class ShrunkGroup(Value):
    """A channel group that became narrower."""

    name: str
    before: int
    after: int
    carriers: int = 0
    """Channels that stay only to send on what those that went had sent."""


class KeptFilters(Value):
    """Zeroed filters of a layer that could not go."""

    layer: str
    filters: int
    reason: str


class ShrinkReport(Value):
    """How much smaller a masked model became."""

    kind: Literal["shrink"] = "shrink"
    model: str
    exact: bool
    """Whether outputs are equal; else constants at zero-padded borders are approximate."""

    before: Profile
    after: Profile
    zeroed: int = Field(ge=0)
    """Filters, depthwise ones among them, that are all zero."""

    removed: int = Field(ge=0)
    """Those of them that went."""

    carried: int = Field(ge=0)
    """Those that stay to stand for others at zero-padded borders, or as the last of a layer."""

    groups: tuple[ShrunkGroup, ...]
    kept: tuple[KeptFilters, ...]
    """Those that stay for other reasons."""

    noise_drift: float = Field(ge=0)
    """Largest difference between the outputs on noise, as a share of the largest output."""

    pictures: int = Field(default=0, ge=0)
    """So many real pictures were compared."""

    score_drift: float | None = None
    """Largest difference in score of an anchor on them."""

    offset_drift: float | None = None
    """Largest difference in an offset of an anchor on them."""

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.removed} of {self.zeroed} zeroed filters removed, parameters "
            f"{self.before.parameters} -> {self.after.parameters}, MACs "
            f"{self.before.macs / 1e6:.1f} M -> {self.after.macs / 1e6:.1f} M"
        )


class Filters:
    """Which filters of a masked model are zero."""

    def __init__(self, detector: Network) -> None:
        self.zero: dict[str, Tensor] = {}
        """Layer -> shape ``(filters,)``, bool."""
        for name, layer in detector.named_modules():
            if is_writer(layer) or is_depthwise(layer):
                assert isinstance(layer.weight, Tensor)
                self.zero[name] = (layer.weight.detach() == 0).flatten(1).all(dim=1).cpu()

    def __len__(self) -> int:
        return sum(int(zero.sum()) for zero in self.zero.values())


def shrunk_groups(groups: Sequence[ChannelGroup], found: Silenced) -> tuple[ShrunkGroup, ...]:
    """Return the groups that lost channels."""
    return tuple(
        ShrunkGroup(
            name=group.name,
            before=group.size,
            after=group.size - int(found.gone[group.name].sum()),
            carriers=len(found.carriers[group.name]),
        )
        for group in groups
        if bool(found.gone[group.name].any())
    )


def account(
    detector: Network, groups: Sequence[ChannelGroup], found: Silenced, filters: Filters
) -> tuple[int, int, tuple[KeptFilters, ...]]:
    """Return how many zeroed filters went and how many carry others, and why the others stayed."""
    removed = carried = 0
    kept: dict[str, list[tuple[int, str]]] = {}
    for group in groups:
        gone = found.gone[group.name]
        carriers = torch.zeros_like(gone)
        carriers[found.carriers.get(group.name, [])] = True
        for layer, zero in _zeroed(group, filters).items():
            removed += int((zero & gone).sum())
            carried += int((zero & carriers).sum())
            stays = zero & ~gone & ~carriers
            if stays.any():
                reason = _reason(detector, group, layer, stays, filters)
                kept.setdefault(layer, []).append((int(stays.sum()), reason))
    rows = [
        KeptFilters(layer=layer, filters=count, reason=reason)
        for layer in filters.zero
        for count, reason in kept.get(layer, ())
    ]
    return removed, carried, tuple(rows)


def _zeroed(group: ChannelGroup, filters: Filters) -> Mapping[str, Tensor]:
    """Layer -> which channels of the group it writes, or passes on, by filters of zeros."""
    return {
        member.module: filters.zero[member.module][torch.as_tensor(member.positions)].all(dim=1)
        for member in group.members
        if member.side == "out" and member.module in filters.zero
    }


def _reason(
    detector: Network, group: ChannelGroup, layer: str, stays: Tensor, filters: Filters
) -> str:
    if not is_cuttable(group):
        return group.reason
    order = {name: i for i, name in enumerate(filters.zero)}
    others = [
        name
        for name, zero in sorted(_zeroed(group, filters).items(), key=lambda item: order[item[0]])
        if name != layer and bool((~zero & stays).any())
    ]
    writers = [name for name in others if is_writer(detector.get_submodule(name))]
    if writers:
        return f"its channels are also written by {_named(writers)}"
    if others:
        return (
            f"its constant passes {_named(others)}, behind whose zero padding it differs from "
            "place to place"
        )
    return "what it sends on differs from place to place, or is read in a way not understood"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed
