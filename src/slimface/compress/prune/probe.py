"""Probe: let a detector look at some pictures and note what its channels do."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slimface.data.batches import Batch
from slimface.model.channels import ChannelGroup, Member
from slimface.model.network import Network
from slimface.train.criterion import Criterion


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What data-driven importances look at."""

    batches: Sequence[Batch]
    criterion: Criterion


def strengths(detector: Network, groups: Sequence[ChannelGroup], probe: Probe) -> dict[str, Tensor]:
    """Return the mean absolute value of each channel at each layer that reads it.

    Returns:
        ``(readers, group.size)`` by the name of the group.
    """
    sums: dict[str, Tensor] = {}

    def note(name: str, value: Tensor) -> Tensor:
        found = _per_channel(value.abs(), torch.mean)
        sums[name] = sums[name] + found if name in sums else found
        return value

    with _Watched(detector, groups, note) as watched, torch.no_grad():
        for batch in probe.batches:
            watched.look(batch)
    return {
        group.name: torch.stack(
            [
                _at(sums[reader.module], reader).sum(dim=1) / len(probe.batches)
                for reader in _readers(group)
            ]
        )
        for group in groups
    }


def first_order(
    detector: Network,
    groups: Sequence[ChannelGroup],
    probe: Probe,
    *,
    of: Literal["activation", "weight"],
    signed: bool,
) -> dict[str, Tensor]:
    """Return how much the loss depends on each channel, to first order, by the name of the group.

    Args:
        detector: Unchanged.
        groups: Those to value.
        probe: The pictures and the loss.
        of: ``activation``: the effect of silencing the channel for all its readers, one place.
            ``weight``: the effect of zeroing each filter that writes it, a place a filter.
        signed: Add up the batches before the absolute value is taken, not after.
    """
    effect = _on_activations if of == "activation" else _on_weights
    totals: dict[str, Tensor] = {}
    for effects in effect(detector, groups, probe):
        for name, value in effects.items():
            value = value if signed else value.abs()
            totals[name] = totals[name] + value if name in totals else value
    return {name: value.abs() / len(probe.batches) for name, value in totals.items()}


def _on_activations(detector: Network, groups: Sequence[ChannelGroup], probe: Probe) -> Any:
    """For each batch: group -> effects ``(1, size)``."""
    seen: list[tuple[str, Tensor]] = []

    def note(name: str, value: Tensor) -> Tensor:
        # A tensor of its own for each reader, so that its gradient is through this reader alone.
        value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        seen.append((name, value))
        return value

    with _Watched(detector, groups, note) as watched, torch.enable_grad():
        for batch in probe.batches:
            seen.clear()
            loss = probe.criterion(watched.detector, watched.look(batch), batch).total
            gradients = torch.autograd.grad(loss, [value for _, value in seen], allow_unused=True)
            sums: dict[str, Tensor] = {}
            for (name, value), gradient in zip(seen, gradients, strict=True):
                if gradient is not None:
                    found = _per_channel(value.detach() * gradient, torch.sum)
                    sums[name] = sums[name] + found if name in sums else found
            yield {group.name: _summed(sums, group) for group in groups}


def _summed(sums: dict[str, Tensor], group: ChannelGroup) -> Tensor:
    total = torch.zeros(1, group.size)
    for reader in _readers(group):
        if reader.module in sums:
            total += _at(sums[reader.module], reader).sum(dim=1)
    return total


def _on_weights(detector: Network, groups: Sequence[ChannelGroup], probe: Probe) -> Any:
    """For each batch: group -> effects ``(writers, size)``."""
    with _Watched(detector, (), lambda _, value: value) as watched, torch.enable_grad():
        own = watched.detector
        weights = {
            f"{name}": layer.weight
            for name, layer in own.named_modules()
            if isinstance(layer, nn.Conv2d | nn.Linear)
        }
        for batch in probe.batches:
            loss = probe.criterion(own, watched.look(batch), batch).total
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            effects = {
                name: torch.zeros(len(weight))
                if gradient is None
                else (gradient * weight.detach()).flatten(1).sum(dim=1).cpu()
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
            yield {
                group.name: torch.stack(
                    [
                        _at(effects[member.module], member).sum(dim=1)
                        for member in group.members
                        if member.side == "out" and member.module in effects
                    ]
                )
                for group in groups
            }


class _Watched:
    """A copy of a detector whose readers tell what they receive."""

    def __init__(
        self,
        detector: Network,
        groups: Sequence[ChannelGroup],
        note: Callable[[str, Tensor], Tensor],
    ) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(True)
        self._readers = {reader.module for group in groups for reader in _readers(group)}
        self._note = note

    def __enter__(self) -> "_Watched":
        for name in self._readers:
            self.detector.get_submodule(name).register_forward_pre_hook(self._hook(name))
        return self

    def __exit__(self, *_: object) -> None:
        # The hooks go with the copy.
        return None

    def look(self, batch: Batch) -> Any:
        """Predict, as evaluation does."""
        device = next(self.detector.parameters()).device
        return self.detector(self.detector.prepare(batch.images.to(device)))

    def _hook(self, name: str) -> Callable[..., Any]:
        return lambda _, inputs: (self._note(name, inputs[0]), *inputs[1:])


def _readers(group: ChannelGroup) -> list[Member]:
    return [member for member in group.members if member.side == "in"]


def _per_channel(value: Tensor, how: Callable[..., Tensor]) -> Tensor:
    """Reduce a map ``(n, c, h, w)``, or rows ``(n, c)``, to ``(c,)``."""
    rest = [0, *range(2, value.dim())]
    return how(value.float(), dim=rest).cpu()


def _at(values: Tensor, member: Member) -> Tensor:
    """Return ``(size, k)``: the values at the places of the group's channels."""
    return values[torch.as_tensor(member.positions)]
