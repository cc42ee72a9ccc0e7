"""Explain: which channels a layer's channels are tied to, and why some cannot be cut."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from slimface.errors import UsageError
from slimface.model.channels import PICTURE, ChannelGroup
from slimface.model.detector import Detector
from slimface.model.widths import is_depthwise


@dataclass(frozen=True, slots=True)
class Tie:
    """A coupled group, as people see it."""

    group: str
    channels: int
    """How many can go one by one, each from all layers at once."""

    writers: tuple[str, ...]
    """Layers that write the channels. Several are added up, so each must lose the same ones."""

    passers: tuple[str, ...]
    """Norms, activations and depthwise convolutions that pass each channel on."""

    readers: tuple[str, ...]
    reason: str
    """Why it cannot be cut; empty if it can."""

    def __str__(self) -> str:
        verdict = f"cannot be cut: {self.reason}" if self.reason else "can be cut"
        lines = [f"{self.group}: {self.channels} channels, {verdict}"]
        added = " (added up, so they lose the same channels)" if len(self.writers) > 1 else ""
        for title, layers in (
            (f"written by{added}", self.writers),
            ("passed on one by one by", self.passers),
            ("read by", self.readers),
        ):
            lines += [f"  {title}", *(f"    {layer}" for layer in layers)] if layers else []
        return "\n".join(lines)


def explain(detector: Detector, groups: Sequence[ChannelGroup], layer: str) -> tuple[Tie, ...]:
    """Return the groups that the outputs of a layer belong to.

    Args:
        detector: The model.
        groups: ``channel_groups(detector)``.
        layer: Name of a layer, or the beginning of several names.

    Raises:
        UsageError: No layer with channels has this name; the message names the nearest.
    """
    written = {m.module: None for group in groups for m in group.members if m.side == "out"}
    meant = [name for name in written if name == layer or name.startswith(layer + ".")]
    if not meant:
        near = difflib.get_close_matches(layer, written, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"{detector.spec.name} has no layer {layer!r} with channels of its own.\n{hint}"
            "`slimface profile MODEL` lists the layers."
        )
    return tuple(
        _tie(detector, group)
        for group in groups
        if any(member.side == "out" and member.module in meant for member in group.members)
    )


def _tie(detector: Detector, group: ChannelGroup) -> Tie:
    sides: dict[str, list[str]] = {"writers": [], "passers": [], "readers": []}
    for member in group.members:
        if member.side == "in":
            role = "readers"
        else:
            role = "writers" if _writes(detector, member.module) else "passers"
        sides[role].append(member.module)
    return Tie(
        group=group.name,
        channels=group.size,
        reason=group.reason,
        **{role: tuple(names) for role, names in sides.items()},
    )


def _writes(detector: Detector, name: str) -> bool:
    if name == PICTURE:
        return True
    layer = detector.get_submodule(name)
    return isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer)
