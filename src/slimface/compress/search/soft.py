"""Soft pruning at searched rates: the whole of B-FPGM in one step."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimface.compress.prune.allocate import PerGroup
from slimface.compress.prune.importance import Fpgm
from slimface.compress.prune.patterns import PRESETS, rates_of_groups
from slimface.compress.prune.soft import SoftPrune
from slimface.compress.prune.step import Prune
from slimface.compress.search.bfpgm import BFpgm
from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.order import ZEROED, Terms
from slimface.step import Context
from slimface.train.step import Train


class SoftSearch(Value):
    """Search a rate for each group of layers, then prune softly at these rates.

    Source: Kaparinos and Mezaris, "B-FPGM", WACV Workshops 2025, arXiv:2501.16917, section 3.
    """

    kind: Literal["soft_search"] = "soft_search"
    search: BFpgm
    train: Train
    every: int = Field(default=5, gt=0)
    """Zero after each so many epochs."""

    end: Literal["remove", "zero"] = "zero"
    """See ``SoftPrune``."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        searched = replace(self.search.terms(), leaves=frozenset())
        zeroed = {ZEROED} if self.end == "zero" else ()
        return searched | self.train.terms() | Terms(leaves=frozenset(zeroed))

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector; killed, it goes on where it stopped.

        Raises:
            BudgetError: No rates meet the target.
            UsageError: There are too few pictures, or the groups are of another architecture.
        """
        folder = context.folder / "search"
        folder.mkdir(exist_ok=True)
        rates, value, counts = self.search.find(detector, replace(context, folder=folder))
        groups = channel_groups(detector)
        kept = {n: rate for n, rate in rates.items() if self._fits(groups, n, rate)}
        context.record(
            "b_fpgm", {"target": self.search.target, "rates": rates, "value": value, **counts}
        )
        rule = PerGroup(
            rates=kept,
            groups=self.search.groups,
            rounding="down" if self.search.defects.rounds_down else "nearest",
        )
        prune = Prune(importance=Fpgm(normalise="none"), allocator=rule)
        soft = SoftPrune(train=self.train, prune=prune, every=self.every, end=self.end)
        return soft(detector, context)

    def _fits(self, groups: tuple[ChannelGroup, ...], name: str, rate: float) -> bool:
        """Whether a group of layers has a channel that can go: the heads have none."""
        try:
            rates_of_groups(groups, {name: rate}, PRESETS[self.search.groups])
        except UsageError:
            return False
        return True
