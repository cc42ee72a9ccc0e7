"""Fade out: channels are pressed to nothing while the detector learns, then removed."""

from typing import Literal

import numpy as np
from pydantic import Field

from slimface.compress.prune.step import Prune
from slimface.core.value import Value
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.model.surgery import remove_channels
from slimface.order import Terms
from slimface.step import Context
from slimface.train.regularise import GrowingL2
from slimface.train.step import Train


class FadeOut(Value):
    """Choose channels, press them to nothing by a growing penalty while all learn, remove them.

    What the removal would have broken has moved to the other channels by then.

    Source: Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021, arXiv:2012.09243,
    algorithm 1 (GReg-1); see ``GrowingL2`` for what differs.
    """

    kind: Literal["fade_out"] = "fade_out"
    train: Train
    prune: Prune
    """Which channels are chosen, from the detector as it comes."""

    ceiling: float = Field(default=1.0, gt=0)
    """Weight of the penalty in the last epoch."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return self.prune.terms() | self.train.terms()

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector with fewer channels; killed, it goes on where it stopped.

        Raises:
            BudgetError: The budget cannot be met.
            TraceError: The channels of the detector cannot be followed.
            UsageError: There are no pictures with faces to learn from.
        """
        groups = channel_groups(detector)
        chosen = self.prune.choose(detector, groups, context)
        gone = {
            group.name: np.setdiff1d(np.arange(group.size), chosen.keep[group.name])
            for group in groups
            if group.name in chosen.keep
        }
        penalty = GrowingL2(
            of=self.train.criterion,
            channels={name: tuple(channels.tolist()) for name, channels in gone.items()},
            ceiling=self.ceiling,
            epochs=self.train.schedule.epochs,
        )
        trained = self.train.model_copy(update={"criterion": penalty})(detector, context)
        pruned = remove_channels(trained, chosen.keep, groups=groups)
        self.prune.record(trained, pruned, groups, chosen, context)
        return pruned
