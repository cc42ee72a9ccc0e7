"""Patterns: groups of layers by name, and the divisions the published systems searched over."""

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup

Preset = Literal["eresfd-script", "eresfd-files", "extd"]
Patterns = Mapping[str, tuple[str, ...]]


def _stages(*numbers: int) -> tuple[str, ...]:
    return tuple(f"base.m0.b2_{number}" for number in numbers)


_REST: dict[str, tuple[str, ...]] = {"g5": ("base.m0.fpn",), "g6": ("base.m0.FEM_*",)}

PRESETS: Mapping[Preset, Patterns] = {
    # As B-FPGM's script writes them.
    "eresfd-script": {
        "g1": ("base.conv1", "base.conv2", "base.conv3"),
        "g2": ("base.conv4", *_stages(1)),
        "g3": _stages(2, 3),
        "g4": _stages(4, 5),
        **_REST,
    },
    # As the zeros in B-FPGM's published files show them.
    "eresfd-files": {
        "g1": ("base.conv1", "base.conv2"),
        "g2": ("base.conv3", "base.conv4"),
        "g3": _stages(1, 2),
        "g4": _stages(3, 4, 5),
        **_REST,
    },
    # Heads are a group of their own there; each of their outputs has a meaning, so its rate is 0.
    "extd": {
        "g1": ("base.0", "base.1"),
        "g2": ("base.2", "base.3"),
        "g3": ("base.4",),
        "g4": ("base.5",),
        "g5": ("upfeat",),
        "g6": ("loc", "conf"),
    },
}


def rates_of_groups(
    groups: Sequence[ChannelGroup], rates: Mapping[str, float], named: Patterns | None
) -> dict[str, float]:
    """Return the rate of every group that can be cut, from rates of layers by name.

    Raises:
        UsageError: A rate is for no named group, a pattern fits no layer, or a rate above 0 is for
            layers none of which can be cut.
    """
    named = {name: (name,) for name in rates} if named is None else named
    for name in rates:
        if name not in named:
            raise UsageError(
                f"There is no group {name!r} to give a rate to.\n"
                f"{_nearest(name, named)}The groups are {', '.join(named)}."
            )
    layers = _layers(groups)
    by_layer: dict[str, float] = {}
    lengths: dict[str, int] = {}
    for name, rate in rates.items():
        for pattern in named[name]:
            fitting = [layer for layer in layers if _fits(layer, pattern)]
            _check(pattern, rate, fitting, groups, layers)
            for layer in fitting:
                # Of several patterns for one layer the most particular counts.
                if len(pattern) >= lengths.get(layer, 0):
                    by_layer[layer], lengths[layer] = rate, len(pattern)
    result = {}
    for group in (group for group in groups if group.prunable):
        said = [by_layer[name] for name in _writers(group) if name in by_layer]
        result[group.name] = sum(said) / len(said) if said else 0.0
    return result


def _check(
    pattern: str,
    rate: float,
    fitting: Sequence[str],
    groups: Sequence[ChannelGroup],
    layers: Sequence[str],
) -> None:
    if not fitting:
        parts = [layer.split(".") for layer in layers]
        prefixes = {".".join(part[:i]): None for part in parts for i in range(1, len(part) + 1)}
        raise UsageError(
            f"No layer with channels is called {pattern!r}.\n{_nearest(pattern, prefixes)}"
            "`slimface profile MODEL` lists the layers."
        )
    touched = [group for group in groups if set(_writers(group)) & set(fitting)]
    if rate > 0 and not any(group.prunable for group in touched):
        raise UsageError(
            f"No channel of {pattern!r} can go: {touched[0].reason}.\nGive it the rate 0."
        )


def _layers(groups: Sequence[ChannelGroup]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in _writers(group)))


def _writers(group: ChannelGroup) -> list[str]:
    """Layers that write the group's channels or pass them on."""
    return [member.module for member in group.members if member.side == "out"]


def _fits(layer: str, pattern: str) -> bool:
    return layer == pattern or layer.startswith(pattern + ".") or fnmatchcase(layer, pattern)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"Did you mean {near[0]!r}? " if near else ""
