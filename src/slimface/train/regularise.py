"""Regularise: penalties that press channels to nothing, so that their removal costs little.

A channel is all that belongs to it: the filters that write it, the scales and shifts of the norms
it passes, and the weights by which others read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup
from slimface.model.network import Network
from slimface.train.around import Around, Bound, groups_of
from slimface.train.criterion import Criterion, Loss


class GroupLasso(Around):
    """Whole coupled channels are pressed to nothing, whichever the loss can do without.

    Adds ``weight * sum over channels of sqrt(n) * ||theta||``, where ``theta`` are the ``n``
    parameters of a channel.

    Source: Yuan and Lin, "Model Selection and Estimation in Regression with Grouped Variables",
    2006, equation 2.1; Wen et al., "Learning Structured Sparsity", NeurIPS 2016, arXiv:1608.03665,
    with the coupled groups of Fang et al., arXiv:2301.12900.
    """

    kind: Literal["group_lasso"] = "group_lasso"
    weight: float = Field(default=2e-6, ge=0)

    def bound(self, detector: Network, of: Criterion) -> Bound:
        """Follow the channels."""
        groups = [group for group in groups_of(detector) if group.prunable]
        parts = [_Part.of(detector, group) for group in groups]
        return _Lasso(of, parts, self.weight)


class GrowingL2(Around):
    """Chosen channels are pressed to nothing by a penalty that grows from epoch to epoch.

    Adds ``weight / 2 * sum of theta ** 2`` over the parameters of the channels; the weight rises
    evenly up to ``ceiling``.

    Source: Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021, arXiv:2012.09243,
    algorithm 1 (GReg-1). Differs in that coupled channels and their norms are pressed, and that
    the weight rises by epochs.
    """

    kind: Literal["growing_l2"] = "growing_l2"
    channels: dict[str, tuple[int, ...]]
    """The channels that are to vanish, by the name of their group."""

    ceiling: float = Field(default=1.0, gt=0)
    epochs: int = Field(gt=0)
    """How long the weight rises; it reaches the ceiling in the last of them."""

    def bound(self, detector: Network, of: Criterion) -> Bound:
        """Find the channels.

        Raises:
            UsageError: The detector has no such channels.
        """
        groups = {group.name: group for group in groups_of(detector) if group.prunable}
        for name, channels in self.channels.items():
            if name not in groups or max(channels, default=0) >= groups[name].size:
                raise UsageError(
                    f"{detector.spec.name} has no channels {list(channels)} of {name}.\n"
                    "The penalty is for another model; use the step fade_out, which chooses them."
                )
        parts = [
            _Part.of(detector, groups[name], channels) for name, channels in self.channels.items()
        ]
        return _Growing(of, parts, self.ceiling, self.epochs)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Where the parameters of some channels of a group are."""

    places: Sequence[tuple[str, str, Tensor]]
    """Name of a parameter, side, positions ``(channels, k)``."""

    parameters: int
    """Of each channel."""

    @classmethod
    def of(
        cls, detector: Network, group: ChannelGroup, channels: Sequence[int] | None = None
    ) -> "_Part":
        chosen = list(range(group.size)) if channels is None else list(channels)
        places, count = [], 0
        for member in group.members:
            layer = detector.get_submodule(member.module)
            if not isinstance(layer, _ConvNd | nn.Linear | _BatchNorm):
                continue
            for name, parameter in layer.named_parameters(recurse=False):
                if member.side == "in" and name != "weight":
                    continue
                positions = torch.as_tensor(member.positions[chosen], device=parameter.device)
                places.append((f"{member.module}.{name}", member.side, positions))
                axis = parameter.shape[0 if member.side == "out" else 1]
                count += parameter.numel() // axis * positions.shape[1]
        return cls(places, count)

    def squares(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Sum of squared parameters of each channel, shape ``(channels,)``."""
        sums = []
        for name, side, positions in self.places:
            squared = parameters[name].square()
            kept = 0 if side == "out" else 1
            rest = [axis for axis in range(squared.dim()) if axis != kept]
            each = squared.sum(dim=rest) if rest else squared
            sums.append(each[positions].sum(dim=1))
        return torch.stack(sums).sum(dim=0)


class _Lasso(Bound):
    def __init__(self, of: Criterion, parts: Sequence[_Part], weight: float) -> None:
        super().__init__(of)
        self.parts, self.weight = parts, weight

    def __call__(self, detector: Network, raw: Any, batch: Any) -> Loss:
        inner = self.of(detector, raw, batch)
        parameters = dict(detector.named_parameters())
        # The root of zero has no gradient.
        norms = [
            (part.parameters * part.squares(parameters) + 1e-12).sqrt().sum() for part in self.parts
        ]
        return _with(inner, "lasso", self.weight * torch.stack(norms).sum())


class _Growing(Bound):
    def __init__(self, of: Criterion, parts: Sequence[_Part], ceiling: float, epochs: int) -> None:
        super().__init__(of)
        self.parts, self.ceiling, self.epochs = parts, ceiling, epochs
        self.weight = ceiling / epochs

    def begin_epoch(self, index: int) -> None:
        self.weight = self.ceiling * min((index + 1) / self.epochs, 1.0)

    def __call__(self, detector: Network, raw: Any, batch: Any) -> Loss:
        inner = self.of(detector, raw, batch)
        if not self.parts:
            return inner
        parameters = dict(detector.named_parameters())
        squares = torch.stack([part.squares(parameters).sum() for part in self.parts])
        return _with(inner, "growing_l2", self.weight / 2 * squares.sum())


def _with(inner: Loss, name: str, penalty: Tensor) -> Loss:
    return Loss(inner.total + penalty, {**inner.parts, name: penalty.detach()})
