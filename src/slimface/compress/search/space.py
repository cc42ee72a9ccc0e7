"""Space: which rates a search may choose, and which channels each of them moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Self

import numpy as np

from slimface.compress.prune.descent import Floats
from slimface.compress.prune.patterns import PRESETS, Preset, rates_of_groups
from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup
from slimface.model.cost import CostModel

Variables = Preset | dict[str, tuple[str, ...]] | int
"""A published division, layers by the name of a variable, or how many parts to divide into."""


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Variables in [0, 1], each the rate of some coupled groups."""

    names: tuple[str, ...]
    shares: Floats
    """Shape ``(groups, variables)``: what each variable has of a group's rate."""

    sizes: Floats
    """Shape ``(groups,)``: channels before any cut."""

    @classmethod
    def over(
        cls,
        groups: Sequence[ChannelGroup],
        costs: CostModel,
        variables: Variables,
        worth: Floats | None = None,
    ) -> Self:
        """Divide the groups that can be cut.

        Args:
            groups: ``channel_groups(detector)``.
            costs: Of the same groups.
            variables: How.
            worth: What each group can save: parts that save most are divided most finely, and
                groups that save nothing get no rate of their own accord. None: their MACs.

        Raises:
            UsageError: A name fits no layer, or nothing can be cut.
        """
        if not costs.names:
            raise UsageError(
                "No channel of this model can be removed, so there is nothing to search.\n"
                "`slimface prune MODEL --explain LAYER` says what holds a layer."
            )
        if isinstance(variables, int):
            if worth is None or not worth.any():
                worth = costs.savings("macs", costs.sizes, costs.sizes)
            parts = _parts(dict(zip(costs.names, worth.tolist(), strict=True)), variables)
            shares = [[float(name in part) for part in parts.values()] for name in costs.names]
            return cls(tuple(parts), np.array(shares), costs.sizes.astype(np.float64))
        named = PRESETS[variables] if isinstance(variables, str) else variables
        return cls._named(groups, costs, named)

    @classmethod
    def _named(
        cls, groups: Sequence[ChannelGroup], costs: CostModel, named: Mapping[str, tuple[str, ...]]
    ) -> Self:
        free = cuttable(groups, named)
        columns = {}
        for name in free:
            rates = rates_of_groups(groups, {one: float(one == name) for one in free}, free)
            columns[name] = [rates[group] for group in costs.names]
        if not columns:
            raise UsageError(
                f"No layer of the groups {', '.join(named)} can lose a channel.\n"
                "`slimface prune MODEL --explain LAYER` says what holds a layer."
            )
        return cls(
            tuple(columns), np.array(list(columns.values())).T, costs.sizes.astype(np.float64)
        )

    def rates(self, values: Mapping[str, float]) -> Floats:
        """Return the rate of every coupled group, shape ``(groups,)``.

        Raises:
            UsageError: A value is for no variable, or is no rate.
        """
        for name, value in values.items():
            if name not in self.names or not 0 <= value <= 1:
                raise UsageError(
                    f"{name}={value:g} is no rate of this search.\n"
                    f"It has {', '.join(self.names)}, each from 0 to 1."
                )
        return np.asarray(self.shares @ [values.get(name, 0.0) for name in self.names])

    def values(self, widths: Floats) -> dict[str, float]:
        """Return the variables that come nearest to these widths: the mean rate of each part."""
        weights = self.shares * self.sizes[:, None]
        total = np.maximum(weights.sum(axis=0), 1e-9)
        gone = (1 - widths / self.sizes) @ weights / total
        return dict(zip(self.names, np.clip(gone, 0, 1).tolist(), strict=True))


def cuttable(
    groups: Sequence[ChannelGroup], named: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return a division without what cannot be cut: heads, and layers that nothing depends on.

    Raises:
        UsageError: A name fits no layer.
    """
    # A rate of 0 checks the names and asks for nothing.
    rates_of_groups(groups, dict.fromkeys(named, 0.0), named)
    free: dict[str, tuple[str, ...]] = {}
    for name, beginnings in named.items():
        kept = tuple(one for one in beginnings if _can_be_cut(groups, one))
        if kept:
            free[name] = kept
    return free


def _can_be_cut(groups: Sequence[ChannelGroup], beginning: str) -> bool:
    try:
        rates_of_groups(groups, {beginning: 1.0}, None)
    except UsageError:
        return False
    return True


def _parts(worth: Mapping[str, float], most: int) -> dict[str, list[str]]:
    """Cut the tree of layer names where most can be saved, until there are ``most`` parts.

    Args:
        worth: What each coupled group can save, in the order of the layers; groups of 0 are in no
            part.
        most: Number of parts.

    Returns:
        Names of coupled groups by the beginning that they share, in the order of the layers.
    """
    names = [name for name, saved in worth.items() if saved > 0]
    parts = {_shared(names): names}
    while True:
        ranked = sorted(parts, key=lambda name: -sum(worth[one] for one in parts[name]))
        for name in ranked:
            finer = _divided(parts[name])
            if len(finer) > 1 and len(parts) - 1 + len(finer) <= most:
                break
        else:
            first = {name: names.index(members[0]) for name, members in parts.items()}
            return {name: parts[name] for name in sorted(parts, key=first.__getitem__)}
        parts = {other: members for other, members in parts.items() if other != name} | finer


def _divided(names: Sequence[str]) -> dict[str, list[str]]:
    """One level deeper, below the beginning that all of them share."""
    shared = _shared(names)
    depth = len(shared.split(".")) + 1 if shared else 1
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return {_shared(members): members for members in parts.values()}


def _shared(names: Sequence[str]) -> str:
    """The longest beginning, in whole words between dots, that all names share."""
    words = zip(*(name.split(".") for name in names), strict=False)
    same = takewhile(lambda column: len(set(column)) == 1, words)
    return ".".join(column[0] for column in same)
