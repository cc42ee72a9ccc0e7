"""Importances: the value of each channel of a coupled group.

A channel of a group is written by the filters of several layers (all the writers of a residual
stream) and read by several others. An importance says what the channel is worth at each of these
places; ``normalise`` makes the places comparable, and ``reduction`` makes one value of them.

To add one: write a class with a ``kind``, and name it in ``Importance``. Of filters it needs only
``__call__``; anything else implements ``places``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.compress.prune.probe import Probe, first_order, strengths
from slimface.core.value import Value
from slimface.errors import CheckpointError, UsageError
from slimface.model.channels import ChannelGroup, Member
from slimface.model.network import Network

Reduction = Literal["mean", "sum", "max", "product", "first"]
Normalise = Literal["mean", "l2", "none"]


class _Importance(Value, ABC):
    reduction: Reduction = "mean"
    """How the values at several places become one; ``first``: only the first place counts."""

    normalise: Normalise = "mean"
    """What the values at one place are divided by, so that no layer outweighs others by its size:
    their mean, their Euclidean norm, or nothing."""

    @abstractmethod
    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Return values ``(places, group.size)``, none negative, by the name of the group."""


class _OfFilters(_Importance):
    """A value that each filter has among those of its layer."""

    @abstractmethod
    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""

    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Score the filters that write each group."""
        values = {}
        for group in groups:
            found = []
            for member, layer in _members(detector, group):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    rows = layer.weight.detach().flatten(1).float()
                    found.append(self(rows[torch.as_tensor(member.positions[:, 0])]))
            values[group.name] = torch.stack(found)
        return values


class L1(_OfFilters):
    """Sum of absolute weights of a filter.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710.
    """

    kind: Literal["l1"] = "l1"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        return filters.abs().sum(dim=1)


class L2(_OfFilters):
    """Euclidean norm of a filter.

    Source: He et al., "Soft Filter Pruning", IJCAI 2018, arXiv:1808.06866, equation 2 with p = 2.
    """

    kind: Literal["l2"] = "l2"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        norms: Tensor = torch.linalg.vector_norm(filters, dim=1)
        return norms


class Fpgm(_OfFilters):
    """Distance to all other filters of the layer, summed: a filter amid its peers is replaceable.

    Source: He et al., "Filter Pruning via Geometric Median", CVPR 2019, arXiv:1811.00250,
    equation 6.
    """

    kind: Literal["fpgm"] = "fpgm"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        # Direct differences: the default of cdist loses the small distances to cancellation.
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(filters, filters, compute_mode=mode).sum(dim=1)


class Lamp(_OfFilters):
    """Squared norm of a filter over that of all that outlive it: comparable between layers.

    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021,
    arXiv:2010.07611, equation 4, with filters in the place of single weights.
    """

    kind: Literal["lamp"] = "lamp"
    normalise: Normalise = "none"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        squared = filters.square().sum(dim=1)
        order = squared.argsort(descending=True, stable=True)
        outlive = torch.empty_like(squared)
        outlive[order] = squared[order].cumsum(dim=0)
        return squared / outlive.clamp(min=1e-30)


class NormScale(_Importance):
    """Absolute scale of the batch norms that the channel passes: how strong it comes out.

    A channel that passes none, such as those of a squeeze-and-excite module, comes out as strong
    as its filter's Euclidean norm says, for inputs of unit variance; that is its value.

    Source: Liu et al., "Network Slimming", ICCV 2017, arXiv:1708.06519.
    """

    kind: Literal["norm_scale"] = "norm_scale"
    normalise: Normalise = "none"

    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Read the scales.

        Raises:
            UsageError: No group passes a batch norm.
        """
        found = {group.name: _scales(detector, group) for group in groups}
        if groups and not any(found.values()):
            raise UsageError(
                f"The channels of {detector.spec.name} pass no batch norm whose scale could value "
                "them.\nChoose another importance, such as fpgm."
            )
        without = [group for group in groups if not found[group.name]]
        scales = {name: torch.stack(values) for name, values in found.items() if values}
        return scales | L2().places(detector, without, probe)


def _scales(detector: Network, group: ChannelGroup) -> list[Tensor]:
    """Of each batch norm that a group passes."""
    return [
        layer.weight.detach().float().abs()[torch.as_tensor(member.positions[:, 0])]
        for member, layer in _members(detector, group)
        if isinstance(layer, _BatchNorm) and layer.affine
    ]


class Random(_Importance):
    """Chance: what every other importance has to beat."""

    kind: Literal["random"] = "random"
    normalise: Normalise = "none"
    seed: int = 0

    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Draw values between 0 and 1."""
        generator = torch.Generator().manual_seed(self.seed)
        return {group.name: torch.rand(1, group.size, generator=generator) for group in groups}


class Activation(_Importance):
    """Mean absolute value of the channel, as each of the layers that read it receives it.

    Source: Molchanov et al., ICLR 2017, arXiv:1611.06440, section 2.2 (activation).
    """

    kind: Literal["activation"] = "activation"

    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Watch the detector look at some pictures.

        Raises:
            UsageError: There are no pictures.
        """
        return strengths(detector, groups, _needed(self.kind, probe))


class Taylor(_Importance):
    """What the loss would change by if the channel were gone, to first order.

    ``activation``: gradient times value, summed over all layers that read the channel, which is
    the effect of removing it. ``weight``: gradient times weight, summed over each filter that
    writes it. With ``normalise: l2`` and ``signed``, ``activation`` is the rule of the published
    cascades.

    Source: Molchanov et al., ICLR 2017, arXiv:1611.06440, equations 5 to 7; Molchanov et al.,
    "Importance Estimation for Neural Network Pruning", CVPR 2019, arXiv:1906.10771, equation 8.
    """

    kind: Literal["taylor"] = "taylor"
    normalise: Normalise = "none"
    of: Literal["activation", "weight"] = "activation"
    signed: bool = False
    """Let the effects on different pictures cancel, and take the absolute value at the end."""

    def places(
        self, detector: Network, groups: Sequence[ChannelGroup], probe: Probe | None
    ) -> dict[str, Tensor]:
        """Follow the loss of some pictures backwards.

        Raises:
            UsageError: There are no pictures.
        """
        given = _needed(self.kind, probe)
        return first_order(detector, groups, given, of=self.of, signed=self.signed)


Importance = Annotated[
    L1 | L2 | Fpgm | Lamp | NormScale | Random | Activation | Taylor, Field(discriminator="kind")
]

DATA_DRIVEN = (Activation, Taylor)
"""Importances that have to see pictures."""


def importances(
    detector: Network,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    probe: Probe | None = None,
) -> dict[str, Tensor]:
    """Return the value of every channel of every prunable group.

    Args:
        detector: Unchanged.
        groups: ``channel_groups(detector)``.
        importance: What makes a channel valuable.
        probe: Pictures and a criterion, for the importances that need them.

    Returns:
        Scores ``(group.size,)``, none negative, by the name of the group.

    Raises:
        CheckpointError: The weights hold numbers that are not finite.
        UsageError: The importance needs what is not there.
    """
    free = [group for group in groups if group.prunable]
    scores = {}
    for name, places in importance.places(detector, free, probe).items():
        if not places.isfinite().all():
            raise CheckpointError(
                f"The {importance.kind} importance of {name} is not finite: its weights are "
                "damaged, or too large.\nTrain the model again or load another file."
            )
        scores[name] = _reduced(_normalised(places, importance.normalise), importance.reduction)
    return scores


def _normalised(places: Tensor, rule: Normalise) -> Tensor:
    if rule == "mean":
        return places / places.mean(dim=1, keepdim=True).clamp(min=1e-12)
    if rule == "l2":
        norm: Tensor = torch.linalg.vector_norm(places, dim=1, keepdim=True)
        return places / norm.clamp(min=1e-12)
    return places


def _reduced(places: Tensor, rule: Reduction) -> Tensor:
    match rule:
        case "mean":
            return places.mean(dim=0)
        case "sum":
            return places.sum(dim=0)
        case "max":
            return places.amax(dim=0)
        case "product":
            # The geometric mean: a plain product would compare groups by how many layers they have.
            return places.clamp(min=1e-12).log().mean(dim=0).exp()
        case "first":
            return places[0]


def _members(detector: Network, group: ChannelGroup) -> list[tuple[Member, nn.Module]]:
    """The places on the writing side, with their layers."""
    return [
        (member, detector.get_submodule(member.module))
        for member in group.members
        if member.side == "out"
    ]


def _needed(kind: str, probe: Probe | None) -> Probe:
    if probe is None or not probe.batches:
        raise UsageError(
            f"The {kind} importance has to see pictures, and there are none.\n"
            "Name them with --data DIR, or choose fpgm, l1, l2, lamp or norm_scale."
        )
    return probe
