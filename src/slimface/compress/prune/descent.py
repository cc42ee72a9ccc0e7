"""Descent: take channels away step by step until a rate or a budget is met."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slimface.core.budget import TOLERANCE, Budget
from slimface.errors import BudgetError
from slimface.model.cost import CostModel, Unit

Floats = npt.NDArray[np.float64]
Urgency = Callable[["Descent", Floats, Floats], Floats]
"""``(descent, widths, drop)``: the group with the least number loses its next channels first."""


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """The widths that groups can still have, and what their next channels are worth."""

    costs: CostModel
    floors: Floats
    """Shape ``(groups,)``: no group becomes narrower."""

    multiple_of: int
    _worth: Floats
    """Shape ``(groups, largest size + 1)``: value of the first n channels to go, together."""

    @classmethod
    def over(
        cls,
        scores: Mapping[str, Tensor],
        costs: CostModel,
        *,
        multiple_of: int = 1,
        floor: float = 0.0,
    ) -> Self:
        """Start from whole groups, whose least valuable channels go first."""
        least = np.maximum(np.ceil(floor * costs.sizes - 1e-9), 1)
        floors = np.minimum(np.ceil(least / multiple_of) * multiple_of, costs.sizes)
        worth = np.zeros((len(costs.names), int(max(costs.sizes, default=0)) + 1))
        for row, name in zip(worth, costs.names, strict=True):
            ascending = np.sort(scores[name].cpu().double().numpy())
            row[1 : len(ascending) + 1] = np.cumsum(ascending)
        return cls(costs, floors, multiple_of, worth)

    def drops(self, widths: Floats) -> Floats:
        """Return how many channels each group would lose next; 0 if it is at its floor."""
        over = widths % self.multiple_of
        drop = np.where(over > 0, over, self.multiple_of)
        return np.where(widths - drop < self.floors, 0.0, drop)

    def values(self, widths: Floats, drop: Floats) -> Floats:
        """Return the value of the next channels of each group, together."""
        rows, gone = np.arange(len(widths)), (self.costs.sizes - widths).astype(np.intp)
        value: Floats = self._worth[rows, gone + drop.astype(np.intp)] - self._worth[rows, gone]
        return value

    def remove(self, rate: float, urgency: Urgency) -> dict[str, int]:
        """Remove this share of all channels.

        Raises:
            BudgetError: The floors leave more.
        """
        total = int(self.costs.sizes.sum())
        wanted = round(rate * total)
        widths = self._start()
        for widths in self._steps(urgency):
            if total - widths.sum() >= wanted:
                return self._removed(widths)
        most = (total - widths.sum()) / total
        if wanted == 0:
            return self._removed(self._start())
        raise BudgetError(
            f"{rate:.0%} of the channels cannot go: each group keeps its least number, so that "
            f"at most {most:.1%} can.\n"
            f"Ask for a rate of {int(1000 * most) / 1000:g} or less, or lower the floor."
        )

    def meet(self, budget: Budget, urgency: Urgency) -> dict[str, int]:
        """Remove as little as meets the budget, to 1 % or one channel.

        Raises:
            BudgetError: It is met already, out of reach, or needs a measurement.
        """
        unit = countable(budget)
        before = self.costs.count(unit, self.costs.sizes)
        target = budget.target(before)
        if target >= before:
            raise BudgetError(
                f"The budget {budget} is met before anything is removed: there are {before:,} "
                f"{unit}.\nAsk for fewer."
            )
        last, cost = self._start(), before
        for widths in self._steps(urgency):
            cost = self.costs.count(unit, widths)
            if cost <= target:
                return self._removed(self._nearest(unit, target, last, widths, urgency))
            last = widths
        raise BudgetError(
            f"The budget {budget} ({target:,.0f} of {before:,} {unit}) is out of reach: the least "
            f"that can be is {cost:,} {unit}.\n{_remedy(unit, 100 * (1 - cost / before))}"
        )

    def _nearest(
        self, unit: Unit, target: float, above: Floats, below: Floats, urgency: Urgency
    ) -> Floats:
        """If the last step went far below the target, take another that does not, if there is."""
        least = (1 - TOLERANCE) * target
        if self.costs.count(unit, below) >= least:
            return below
        drop = self.drops(above)
        after = self.costs.count(unit, above) - self.costs.savings(unit, above, drop)
        order = urgency(self, above, drop)
        order[(drop == 0) | (after > target) | (after < least)] = np.inf
        best = int(order.argmin())
        if np.isinf(order[best]):
            return below
        widths = above.copy()
        widths[best] -= drop[best]
        return widths

    def _start(self) -> Floats:
        return self.costs.sizes.astype(np.float64)

    def _steps(self, urgency: Urgency) -> Iterator[Floats]:
        """The widths after each step, until nothing can go any more."""
        widths = self._start()
        while len(widths):
            drop = self.drops(widths)
            order = urgency(self, widths, drop)
            order[drop == 0] = np.inf
            first = int(order.argmin())
            if np.isinf(order[first]):
                return
            widths = widths.copy()
            widths[first] -= drop[first]
            yield widths

    def _removed(self, widths: Floats) -> dict[str, int]:
        gone = (self.costs.sizes - widths).astype(int).tolist()
        return dict(zip(self.costs.names, gone, strict=True))


def countable(budget: Budget) -> Unit:
    """Return what a budget counts.

    Raises:
        BudgetError: It needs a measurement.
    """
    if budget.unit == "ms":
        raise BudgetError(
            f"The budget {budget} needs a measurement: milliseconds do not follow from widths.\n"
            "Prune by a budget of macs, then `slimface export` and `slimface benchmark` the result."
        )
    return budget.unit


def _remedy(unit: Unit, saved: float) -> str:
    lower = "Lower multiple_of and the floor, if there are any"
    if saved < 0.1:
        return f"{lower}: as it is, no group can lose a channel."
    return f"Ask for '-{int(10 * saved) / 10:g}% {unit}' or less. {lower}, to reach further."
