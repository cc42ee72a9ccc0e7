"""Kinds of repair, as values: what is done to a network right after channels were removed."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy.typing as npt
import torch
from pydantic import Field

from slimface.compress.look import Look
from slimface.compress.repair.norms import recalibrate_
from slimface.compress.repair.reconstruct import reconstruct, remaining_outputs
from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup
from slimface.model.network import Network
from slimface.step import Context

N = TypeVar("N", bound=Network)
Keep = Mapping[str, npt.ArrayLike]


class Reconstruct(Value):
    """Solve for the weights that are left, so that each layer answers as it did before the cut.

    Seconds of least squares, no labels: where 30 % of EResFD's MACs are gone, most of what can be
    had back is back before the first epoch. The statistics of the norms stay those of the whole
    network, which they fit: train on with ``frozen_norms``.
    """

    kind: Literal["reconstruct"] = "reconstruct"
    look: Look = Look(batches=12, batch_size=16)
    """The pictures on which answers are compared; all are in memory at once."""

    places: int = Field(default=8192, gt=0)
    """At so many places of each map, drawn at random."""

    ridge: float = Field(default=0.1, gt=0)
    """How strongly weights are drawn to what they were, as a share of the mean square of what
    they see."""

    def mend(
        self, whole: N, narrow: N, keep: Keep, groups: Sequence[ChannelGroup], context: Context
    ) -> N:
        """Return ``narrow`` with other weights.

        Args:
            whole: The network before the cut.
            narrow: After it.
            keep: The channels that were kept.
            groups: ``channel_groups(whole)``.
            context: Where the pictures are.

        Raises:
            UsageError: There are no pictures.
        """
        stays = remaining_outputs(whole, keep, groups)
        images = torch.cat(_images(self.look, context))
        return reconstruct(
            whole, narrow, stays, images, places=self.places, ridge=self.ridge, seed=context.seed
        )


class Norms(Value):
    """Take the statistics of the batch norms anew: those of the whole network fit no longer.

    Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning",
    ECCV 2020, arXiv:2007.02491, section 3.3 (adaptive batch normalisation).
    """

    kind: Literal["norms"] = "norms"
    look: Look = Look()

    def mend(
        self, whole: N, narrow: N, keep: Keep, groups: Sequence[ChannelGroup], context: Context
    ) -> N:
        """As for ``Reconstruct``; ``narrow`` itself is changed."""
        recalibrate_(narrow, _images(self.look, context))
        return narrow


Repair = Annotated[Reconstruct | Norms, Field(discriminator="kind")]


def _images(look: Look, context: Context) -> list[Any]:
    probe = look(context)
    if probe is None:
        raise UsageError(
            "A repair after the cut looks at pictures, and there are none.\n"
            "Name them with --data DIR, or leave the repair out."
        )
    return [batch.images for batch in probe.batches]
