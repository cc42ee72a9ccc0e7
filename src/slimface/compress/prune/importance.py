"""Importances: the value of each filter of a layer, and of each channel of a coupled group.

To add one: write a class with a ``kind`` and ``__call__``, and name it in ``Importance``.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimface.core.value import Value
from slimface.model.channels import ChannelGroup
from slimface.model.detector import Detector


class L1(Value):
    """Sum of absolute weights of a filter.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710.
    """

    kind: Literal["l1"] = "l1"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        return filters.abs().sum(dim=1)


class L2(Value):
    """Euclidean norm of a filter.

    Source: He et al., "Soft Filter Pruning", IJCAI 2018, arXiv:1808.06866, equation 2 with p = 2.
    """

    kind: Literal["l2"] = "l2"

    def __call__(self, filters: Tensor) -> Tensor:
        """Score the rows of ``filters`` ``(c, k)``."""
        norms: Tensor = torch.linalg.vector_norm(filters, dim=1)
        return norms


class Fpgm(Value):
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


Importance = Annotated[L1 | L2 | Fpgm, Field(discriminator="kind")]


def importances(
    detector: Detector, groups: tuple[ChannelGroup, ...], importance: Importance
) -> dict[str, Tensor]:
    """Return the value of every channel of every prunable group.

    A channel of a group is written by the filters of several layers (all the writers of a residual
    stream). Each layer's scores are divided by their mean, so that no layer outweighs the others
    by its size, and averaged over the layers.

    Returns:
        Scores ``(group.size,)`` by the name of the group; about 1 on average.
    """
    modules = dict(detector.named_modules())
    scores: dict[str, Tensor] = {}
    for group in groups:
        if not group.prunable:
            continue
        layers = []
        for member in group.members:
            module = modules[member.module]
            if member.side == "out" and isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight.detach()[torch.as_tensor(member.positions[:, 0])]
                score = importance(weight.flatten(1).float())
                layers.append(score / score.mean().clamp(min=1e-12))
        scores[group.name] = torch.stack(layers).mean(dim=0)
    return scores
