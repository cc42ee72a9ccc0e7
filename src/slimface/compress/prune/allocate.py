"""Allocation: how many channels each group loses.

All allocators take channels away one by one in an order of their own (or blocks of ``multiple_of``
channels); a rate or a budget says where to stop.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor

from slimface.compress.prune.descent import Descent, Floats, Urgency
from slimface.compress.prune.patterns import PRESETS, Preset, rates_of_groups
from slimface.compress.prune.sensitivity import Sensitivities
from slimface.core.budget import Budget
from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.model.channels import ChannelGroup
from slimface.model.cost import CostModel, Measured, Unit

Keep = Mapping[str, npt.NDArray[np.intp]]
"""The channels that stay, ascending, by the name of the group."""


Rounding = Literal["nearest", "down"]
Scores = Mapping[str, Tensor]
"""The value of every channel of a group, by its name."""


_LEAST = {"params": 1.0, "macs": 1.0, "ms": 1e-5}
"""What a step saves at least when values are divided by savings."""


class _Allocator(Value):
    multiple_of: int = Field(default=1, gt=0)
    """Widths that stay are rounded up to a multiple of this: runtimes compute in blocks."""

    budget: Budget | None = None
    """Remove no more than it takes to meet this. Under milliseconds, groups only take widths at
    which the runtime is faster than at all larger ones."""

    also: tuple[Budget, ...] = ()
    """Budgets that have to be met besides."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.also and self.budget is None:
            raise ValueError("also names further budgets; name the first as budget")
        for what in ("size_px", "runtime", "threads"):
            if len({getattr(one, what) for one in self.budgets} - {None, ""}) > 1:
                raise ValueError(f"budgets of one allocator have the same {what}")
        return self

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All that have to be met."""
        return () if self.budget is None else (self.budget, *self.also)

    def _descent(self, scores: Scores, costs: CostModel, *, floor: float = 0.0) -> Descent:
        paying = any(budget.unit == "ms" for budget in self.budgets) and "ms" in costs.meters
        return Descent.over(scores, costs, multiple_of=self.multiple_of, floor=floor, paying=paying)


class _RateOrBudget(_Allocator):
    rate: float | None = Field(default=None, gt=0, lt=1)
    """Share of the channels to remove."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.rate is None) == (self.budget is None):
            raise ValueError("give either a rate or a budget")
        return self


class Uniform(_RateOrBudget):
    """The same rate for every group; with a budget, the rate that meets it, to one channel."""

    kind: Literal["uniform"] = "uniform"
    rounding: Rounding = "nearest"
    """Of the number removed. ``down`` is what the published systems do: 10 % of 8 is none."""

    def __call__(
        self, groups: Sequence[ChannelGroup], scores: Scores, costs: CostModel
    ) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group.

        Raises:
            BudgetError: The budget cannot be met.
        """
        if self.budget is not None:
            descent = self._descent(scores, costs)
            return descent.meet(self.budgets, _in_proportion(np.ones(len(costs.sizes))))
        assert self.rate is not None
        return {
            group.name: removed(group.size, self.rate, self.rounding, self.multiple_of)
            for group in groups
            if group.prunable
        }


class PerGroup(_Allocator):
    """A rate for each named group of layers, as in B-FPGM.

    Channels that several layers write can only go together: such a stream loses the mean of the
    rates of its layers that are named; layers under no name have no say, and what only they write
    stays whole.

    Source: Kaparinos and Mezaris, "B-FPGM", WACV Workshops 2025, arXiv:2501.16917.
    """

    kind: Literal["per_group"] = "per_group"
    rates: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=1)
    """Rate by the name of a group; without ``groups``, by the beginning of layer names."""

    groups: Preset | dict[str, tuple[str, ...]] | None = None
    """The layers of each named group, as beginnings of their names (``base.conv1``) or with ``*``;
    or a published division."""

    rounding: Rounding = "nearest"

    def __call__(
        self, groups: Sequence[ChannelGroup], scores: Scores, costs: CostModel
    ) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group.

        Raises:
            UsageError: A name or pattern fits no layer, or only layers that cannot be cut.
            BudgetError: The budget cannot be met.
        """
        named = PRESETS[self.groups] if isinstance(self.groups, str) else self.groups
        rates = rates_of_groups(groups, self.rates, named)
        if self.budget is not None:
            descent = self._descent(scores, costs)
            return descent.meet(
                self.budgets, _in_proportion(np.array([rates[name] for name in costs.names]))
            )
        return {
            group.name: removed(group.size, rates[group.name], self.rounding, self.multiple_of)
            for group in groups
            if group.prunable
        }


class _Ranking(_RateOrBudget):
    floor: float = Field(default=0.1, ge=0, lt=1)
    """Share of each group that stays at least; one channel always does."""

    def _descend(self, scores: Scores, costs: CostModel, urgency: Urgency) -> dict[str, int]:
        descent = self._descent(scores, costs, floor=self.floor)
        if self.budget is not None:
            return descent.meet(self.budgets, urgency)
        assert self.rate is not None
        return descent.remove(self.rate, urgency)


class Global(_Ranking):
    """One threshold over all groups: the least valuable channels go, wherever they are.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", ICLR 2017, arXiv:1611.06440, section 2.
    """

    kind: Literal["global"] = "global"

    def __call__(
        self, groups: Sequence[ChannelGroup], scores: Scores, costs: CostModel
    ) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group.

        Raises:
            BudgetError: The rate or budget cannot be met above the floor.
        """

        def mean_value(descent: Descent, widths: Floats, drop: Floats) -> Floats:
            return descent.values(widths, drop) / np.maximum(drop, 1)

        return self._descend(scores, costs, mean_value)


class CostAware(_Ranking):
    """Value per cost: channels go first that save most for the least that is lost.

    What a channel saves is exact and follows the widths as they shrink.
    """

    kind: Literal["cost"] = "cost"
    per: Unit | Literal["ms"] | None = None
    """What to save; None: what the budget counts, or MACs. Milliseconds need a budget of them,
    which says where."""

    @model_validator(mode="after")
    def _per_known(self) -> Self:
        if self.per == "ms" and all(budget.unit != "ms" for budget in self.budgets):
            raise ValueError("per ms needs a budget of ms, such as -30% ms@onnxruntime:1t")
        return self

    def __call__(
        self, groups: Sequence[ChannelGroup], scores: Scores, costs: CostModel
    ) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group.

        Raises:
            BudgetError: The rate or budget cannot be met above the floor.
        """
        counted = self.budget.unit if self.budget is not None else "macs"
        unit: Unit | Measured = self.per or ("params" if counted == "size" else counted)

        def value_per_cost(descent: Descent, widths: Floats, drop: Floats) -> Floats:
            saved = costs.savings(unit, widths, drop)
            return descent.values(widths, drop) / np.maximum(saved, _LEAST[unit])

        return self._descend(scores, costs, value_per_cost)


class Sensitivity(_Ranking):
    """Groups go on losing channels as long as the loss rises least for it, as measured one by one.

    Every group then has about the same rise of the loss that it would cause alone.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710,
    section 3.2, where rates are read off the curves by eye.
    """

    kind: Literal["sensitivity"] = "sensitivity"

    def __call__(
        self,
        groups: Sequence[ChannelGroup],
        scores: Scores,
        costs: CostModel,
        *,
        curves: Sensitivities | None = None,
    ) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group.

        Raises:
            BudgetError: The rate or budget cannot be met above the floor.
            UsageError: There are no curves, or they are of another model.
        """
        if curves is None or [curve.group for curve in curves.curves] != list(costs.names):
            raise UsageError(
                "The allocator needs the sensitivity curves of this model.\n"
                "Use the step `prune`, which measures them, or sensitivities(detector, ...)."
            )
        rows = range(len(costs.names))
        # Looked up at every step of the descent, so at whole channels once.
        gone = np.arange(int(max(costs.sizes, default=0)) + 1)
        rises = np.array([curves.rise(i, gone / costs.sizes[i]) for i in rows])

        def rise(descent: Descent, widths: Floats, drop: Floats) -> Floats:
            after = (costs.sizes - widths + drop).astype(np.intp)
            worth = descent.values(widths, drop)
            found: Floats = rises[rows, after] + 1e-9 * worth / (1 + worth)
            return found

        return self._descend(scores, costs, rise)


def _kind(value: Any) -> Any:
    """Recipes of the first version say nothing but the rate."""
    if isinstance(value, Mapping):
        return value.get("kind", "uniform")
    return getattr(value, "kind", None)


Allocator = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[PerGroup, Tag("per_group")]
    | Annotated[Global, Tag("global")]
    | Annotated[CostAware, Tag("cost")]
    | Annotated[Sensitivity, Tag("sensitivity")],
    Discriminator(_kind),
]


def removed(size: int, rate: float, rounding: Rounding = "nearest", multiple_of: int = 1) -> int:
    """Return how many of ``size`` channels a rate removes; one always stays."""
    # Half a thousandth forgives what binary fractions lose of rates like 0.3.
    exact = rate * size
    gone = int(exact + 0.5) if rounding == "nearest" else int(exact + 5e-4)
    kept = max(size - gone, 1)
    if multiple_of > 1:
        kept = min(-(-kept // multiple_of) * multiple_of, size)
    return size - kept


def choose(scores: Scores, removed: Mapping[str, int]) -> dict[str, npt.NDArray[np.intp]]:
    """Return the channels that stay when each group loses its least important ones."""
    keep = {}
    for name, count in removed.items():
        if count:
            order = np.argsort(scores[name].cpu().numpy(), kind="stable")
            keep[name] = np.sort(order[count:])
    return keep


def _in_proportion(rates: Floats) -> Urgency:
    """The group comes next that is furthest behind its rate; of equal ones the least valuable."""

    def behind(descent: Descent, widths: Floats, drop: Floats) -> Floats:
        sizes = descent.costs.sizes
        middle = (sizes - widths + drop / 2) / sizes
        value = descent.values(widths, drop)
        tie = 1e-9 * value / (1 + value)
        never = np.full_like(middle, np.inf)
        found: Floats = np.divide(middle, rates, out=never, where=rates > 0) + tie
        return found

    return behind
