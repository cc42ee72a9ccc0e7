"""Soft pruning: filters are set to zero again and again while the detector learns, then removed."""

import copy
import logging
from typing import Literal

from pydantic import Field

from slimface.compress.prune.step import Prune
from slimface.core.value import Value
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.model.surgery import zero_filters_
from slimface.order import ZEROED, Terms
from slimface.step import Context
from slimface.train.step import Train

log = logging.getLogger(__name__)


class SoftPrune(Value):
    """Train while the least important filters are zeroed every few epochs; remove them at the end.

    A zeroed filter goes on learning, so what was chosen wrongly grows back. Whole coupled groups
    are zeroed, so that what is removed at the end is what the training has got used to.

    Source: He et al., "Soft Filter Pruning", IJCAI 2018, arXiv:1808.06866, algorithm 1. Differs in
    the coupled groups, and in that the optimizer is never replaced (the published face detectors
    lose it every epoch).
    """

    kind: Literal["soft_prune"] = "soft_prune"
    train: Train
    prune: Prune
    """Which filters are zeroed, and at last removed."""

    every: int = Field(default=1, gt=0)
    """Zero after each so many epochs. The last epochs learn with all their filters, until the
    end."""

    end: Literal["remove", "zero"] = "remove"
    """``remove`` the channels, with what their norms still send on. ``zero`` their filters only,
    as the published face detectors do: a following ``shrink`` removes them and loses nothing."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        zeroed = {ZEROED} if self.end == "zero" else ()
        # Which filters matter is asked after some epochs only, so it may begin from random weights.
        return self.train.terms() | Terms(leaves=frozenset(zeroed))

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector with fewer channels; killed, it goes on where it stopped.

        Raises:
            BudgetError: The budget cannot be met.
            TraceError: The channels of the detector cannot be followed.
            UsageError: There are no pictures with faces to learn from.
        """
        groups = channel_groups(detector)
        # What cannot be allocated is said now, not after the training.
        self.prune.choose(detector, groups, context)

        def zero(learning: Detector, epoch: int) -> None:
            if epoch > 0 and epoch % self.every == 0:
                self._zero_(learning, groups, context)

        trained = self.train.learn(detector, context, before_epoch=zero)
        if self.end == "remove":
            return self.prune(trained, context)
        self._zero_(trained, groups, context)
        return trained

    def _zero_(
        self, learning: Detector, groups: tuple[ChannelGroup, ...], context: Context
    ) -> None:
        # The look at pictures and the count of MACs must not disturb what is learning.
        still = copy.deepcopy(learning).cpu().eval()
        chosen = self.prune.choose(still, groups, context)
        zero_filters_(learning, chosen.keep, groups=groups)
        log.info("filters of %d channels are zero", sum(chosen.removed.values()))
