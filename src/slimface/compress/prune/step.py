"""Prune: the step that removes channels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Allocator, Keep, Scores, Sensitivity, choose
from slimface.compress.prune.importance import DATA_DRIVEN, Fpgm, Importance, Random, importances
from slimface.compress.prune.measured import Found, meet_measured
from slimface.compress.prune.probe import Probe
from slimface.compress.prune.sensitivity import sensitivities
from slimface.compress.repair.kinds import Repair
from slimface.core.value import Value
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.cost import CostModel, cost_model
from slimface.model.detector import Detector
from slimface.model.network import Network
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels
from slimface.order import FLOAT, LEARNT, Terms
from slimface.step import Context
from slimface.train.around import innermost

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What is to be removed."""

    removed: dict[str, int]
    """How many channels each group loses."""

    keep: Keep
    costs: CostModel
    measured: Found | None = None
    """What an exported file was measured to cost, if a budget asked for that."""


class Prune(Value):
    """Remove the least important channels of all coupled groups, for good.

    The tensors become smaller; what trains the result afterwards has to make its optimizer after
    this step, which a following ``train`` step does.
    """

    kind: Literal["prune"] = "prune"
    importance: Importance = Fpgm()
    allocator: Allocator
    look: Look = Look()
    """Used by the importances that need pictures."""

    repair: Repair | None = None
    """What is done to the rest right after the cut, before any training."""

    height_px: int = 480
    """Input height for which MACs are counted, unless a budget names another."""

    width_px: int = 640

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        informed = not isinstance(self.importance, Random)
        return Terms(needs=frozenset({FLOAT, LEARNT} if informed else {FLOAT}))

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return a detector with fewer channels.

        Raises:
            BudgetError: The budget cannot be met.
            CheckpointError: The weights are damaged.
            TraceError: The channels of the detector cannot be followed.
            UsageError: The importance needs pictures that are not there, or a name fits no layer.
        """
        groups = channel_groups(detector)
        chosen = self.choose(detector, groups, context)
        pruned = self.remove(detector, chosen.keep, groups, context)
        self.record(detector, pruned, groups, chosen, context)
        return pruned

    def remove(
        self, detector: N, keep: Keep, groups: tuple[ChannelGroup, ...], context: Context
    ) -> N:
        """Return a detector without the channels that are not kept, repaired.

        Raises:
            UsageError: The repair needs pictures that are not there.
        """
        pruned = remove_channels(detector, keep, groups=groups)
        if self.repair is None:
            return pruned
        return self.repair.mend(detector, pruned, keep, groups, context)

    def choose(
        self,
        detector: Detector,
        groups: tuple[ChannelGroup, ...],
        context: Context,
        *,
        scores: Scores | None = None,
    ) -> Choice:
        """Return what calling the step would remove, and remove nothing.

        Args:
            detector: What would be cut.
            groups: Its channel groups.
            context: Where the pictures are.
            scores: The value of every channel, where it is known already.

        Raises:
            BudgetError, CheckpointError, UsageError: As calling the step.
        """
        costs = cost_model(detector, groups, *self.input_px())
        if scores is None:
            scores = self.score(detector, groups, context)

        allocator = self._informed(detector, groups, scores, context)

        def allocate(costs: CostModel) -> tuple[dict[str, int], Keep]:
            removed = allocator(groups, scores, costs)
            return removed, choose(scores, removed)

        budgets = self.allocator.budgets
        if not any(budget.is_measured for budget in budgets):
            return Choice(*allocate(costs), costs)
        found = meet_measured(detector, groups, costs, budgets, allocate, context.track)
        return Choice(found.removed, found.keep, found.costs, found)

    def _informed(
        self,
        detector: Detector,
        groups: tuple[ChannelGroup, ...],
        scores: Scores,
        context: Context,
    ) -> Callable[[Sequence[ChannelGroup], Scores, CostModel], dict[str, int]]:
        """The allocator, with what it has to know of the detector."""
        if not isinstance(self.allocator, Sensitivity):
            return self.allocator
        # Held out: what the detector has learnt by heart is no sign of what it needs.
        probe = self.look(context, split="val") or Probe((), innermost(self.look.criterion))
        found = sensitivities(detector, groups, scores, probe, track=context.track)
        return partial(self.allocator, curves=found)

    def score(
        self, detector: Detector, groups: tuple[ChannelGroup, ...], context: Context
    ) -> Scores:
        """Return the value of every channel, by the name of its group.

        Raises:
            CheckpointError, UsageError: As calling the step.
        """
        probe = self.look(context) if isinstance(self.importance, DATA_DRIVEN) else None
        return importances(detector, groups, self.importance, probe)

    def record(
        self,
        before: Detector,
        after: Detector,
        groups: tuple[ChannelGroup, ...],
        chosen: Choice,
        context: Context,
    ) -> None:
        """Note what a cut that was chosen has made of a detector."""
        context.record("prune", self._report(before, after, groups, chosen))

    def input_px(self) -> tuple[int, int]:
        """Height and width of the picture that MACs are counted for."""
        named = (budget.size_px for budget in self.allocator.budgets)
        return next(filter(None, named), (self.height_px, self.width_px))

    def _report(
        self,
        before: Detector,
        after: Detector,
        groups: tuple[ChannelGroup, ...],
        chosen: Choice,
    ) -> dict[str, Any]:
        removed, costs, found = chosen.removed, chosen.costs, chosen.measured
        measured = {} if found is None else {"measured": found.report()}
        first = profile(before, costs.height_px, costs.width_px)
        last = profile(after, costs.height_px, costs.width_px)
        widths = [size - removed[name] for name, size in zip(costs.names, costs.sizes, strict=True)]
        log.info(
            "parameters %d -> %d, MACs %.1f M -> %.1f M",
            first.parameters,
            last.parameters,
            first.macs / 1e6,
            last.macs / 1e6,
        )
        return measured | {
            "importance": self.importance.kind,
            "allocator": self.allocator.kind,
            "input": [costs.height_px, costs.width_px],
            "predicted": {
                "parameters": costs.count("params", widths),
                "macs": costs.count("macs", widths),
            },
            "before": first.model_dump(mode="json"),
            "after": last.model_dump(mode="json"),
            "groups": [
                {
                    "name": group.name,
                    "before": group.size,
                    "after": group.size - removed[group.name],
                    "layers": [member.module for member in group.members if member.side == "out"],
                }
                for group in groups
                if group.prunable
            ],
            "uncut": [
                {"name": group.name, "size": group.size, "reason": group.reason}
                for group in groups
                if not group.prunable
            ],
        }
