"""Descent: take channels away step by step until a rate or a budget is met."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from slimface.core.budget import TOLERANCE, Budget
from slimface.errors import BudgetError
from slimface.model.cost import CostModel, Measured, Meter, Unit

_NOISE = 0.01
"""Of what a group's milliseconds range over."""

Floats = npt.NDArray[np.float64]
Urgency = Callable[["Descent", Floats, Floats], Floats]
"""``(descent, widths, drop)``: the group with the least number loses its next channels first."""


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """The widths that groups can still have, and what their next channels are worth."""

    costs: CostModel
    _next: npt.NDArray[np.intp]
    """Shape ``(groups, largest size + 1)``: the width that follows each; itself at the floor."""

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
        paying: bool = False,
    ) -> Self:
        """Start from whole groups, whose least valuable channels go first.

        Args:
            scores: The value of every channel of a group, by its name.
            costs: Of the same groups.
            multiple_of: Widths that stay are multiples of this, or whole.
            floor: Share of each group that stays at least.
            paying: Skip the widths that take as long as a larger one.
        """
        columns = int(max(costs.sizes, default=0)) + 1
        worth, following = np.zeros((len(costs.names), columns)), []
        for row, name in zip(worth, costs.names, strict=True):
            ascending = np.sort(scores[name].cpu().double().numpy())
            row[1 : len(ascending) + 1] = np.cumsum(ascending)
        for i, size in enumerate(costs.sizes.tolist()):
            least = max(int(np.ceil(floor * size - 1e-9)), 1)
            allowed = np.arange(-(-least // multiple_of) * multiple_of, size, multiple_of)
            if paying:
                allowed = np.intersect1d(
                    allowed, paying_widths(alone(costs, i, costs.meters["ms"]))
                )
            # One below each width is the place where it would stand among those allowed.
            place = np.searchsorted(allowed, np.arange(columns)) - 1
            step = np.append(allowed, 0)[place]
            following.append(np.where(place < 0, np.arange(columns), step))
        return cls(costs, np.array(following, dtype=np.intp).reshape(-1, columns), worth)

    def drops(self, widths: Floats) -> Floats:
        """Return how many channels each group would lose next; 0 if it is at its floor."""
        now = widths.astype(np.intp)
        drop: Floats = (now - self._next[np.arange(len(now)), now]).astype(np.float64)
        return drop

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

    def meet(self, budgets: Sequence[Budget], urgency: Urgency) -> dict[str, int]:
        """Remove as little as meets all budgets, one of them to 1 % or one channel.

        Raises:
            BudgetError: They are met already, out of reach, or need a measurement.
        """
        bounds = self._bounds(budgets)
        last, cost = self._start(), [bound.before for bound in bounds]
        for widths in self._steps(urgency):
            cost = [self.costs.count(bound.unit, widths) for bound in bounds]
            if all(now <= bound.target for now, bound in zip(cost, bounds, strict=True)):
                return self._removed(self._nearest(bounds, last, widths, urgency))
            last = widths
        missed = max(zip(cost, bounds, strict=True), key=lambda pair: pair[0] / pair[1].target)
        raise _out_of_reach(*missed)

    def _bounds(self, budgets: Sequence[Budget]) -> list["_Bound"]:
        """What is still to be saved."""
        bounds = []
        for budget in budgets:
            unit = _known(budget, self.costs)
            before = self.costs.count(unit, self.costs.sizes)
            bounds.append(_Bound(budget, unit, before, budget.target(before)))
        tight = [bound for bound in bounds if bound.target < bound.before]
        if not tight:
            met = bounds[0]
            raise BudgetError(
                f"The budget {met.budget} is met before anything is removed: there are "
                f"{_said(met.before)} {met.noun}.\nAsk for fewer."
            )
        return tight

    def _nearest(
        self, bounds: Sequence["_Bound"], above: Floats, below: Floats, urgency: Urgency
    ) -> Floats:
        """If the last step went far below all targets, take another that does not, if there is."""
        near = [(1 - TOLERANCE) * bound.target for bound in bounds]
        found = [self.costs.count(bound.unit, below) for bound in bounds]
        if any(now >= least for now, least in zip(found, near, strict=True)):
            return below
        drop = self.drops(above)
        after = np.array(
            [
                self.costs.count(bound.unit, above) - self.costs.savings(bound.unit, above, drop)
                for bound in bounds
            ]
        )
        limits = np.array([[bound.target] for bound in bounds])
        fits = (after <= limits).all(axis=0) & (after >= np.array(near)[:, None]).any(axis=0)
        order = urgency(self, above, drop)
        order[(drop == 0) | ~fits] = np.inf
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


class _Bound(NamedTuple):
    """A budget and what it means for one model."""

    budget: Budget
    unit: Unit | Measured
    before: float
    target: float

    @property
    def noun(self) -> str:
        return "bytes" if self.unit == "size" else self.unit


def _known(budget: Budget, costs: CostModel) -> Unit | Measured:
    if (budget.unit == "ms" or budget.unit == "size") and budget.unit not in costs.meters:
        raise _unmeasured(budget)
    return budget.unit


def _unmeasured(budget: Budget) -> BudgetError:
    return BudgetError(
        f"The budget {budget} needs a measurement: it does not follow from widths alone.\n"
        "Use the step `prune`, which measures, or a budget of macs or params."
    )


def alone(costs: CostModel, group: int, meter: Meter) -> Floats:
    """Return what a network costs if one group has 1, 2, … channels and all others are whole."""
    size = int(costs.sizes[group])
    widths = np.tile(costs.sizes.astype(np.float64), (size, 1))
    widths[:, group] = np.arange(1, size + 1)
    return meter(widths)


def paying_widths(taken: Floats) -> npt.NDArray[np.intp]:
    """Return the widths at which a network is faster than at all larger ones, ascending.

    Args:
        taken: What it takes with 1, 2, … channels.
    """
    # What is less than that was not measured but is noise.
    step = _NOISE * (taken.max() - taken.min())
    paying, least = [], np.inf
    for width in range(len(taken), 0, -1):
        if taken[width - 1] < least - step:
            least = taken[width - 1]
            paying.append(width)
    return np.array(paying[::-1], dtype=np.intp)


def _out_of_reach(cost: float, bound: _Bound) -> BudgetError:
    return BudgetError(
        f"The budget {bound.budget} ({_said(bound.target)} of {_said(bound.before)} {bound.noun}) "
        f"is out of reach: the least that can be is {_said(cost)} {bound.noun}.\n"
        f"{_remedy(bound.unit, 100 * (1 - cost / bound.before))}"
    )


def _said(amount: float) -> str:
    return f"{amount:,.2f}" if amount < 1000 and amount != round(amount) else f"{amount:,.0f}"


def _remedy(unit: str, saved: float) -> str:
    lower = "Lower multiple_of and the floor, if there are any"
    if saved < 0.1:
        return f"{lower}: as it is, no group can lose a channel."
    return f"Ask for '-{int(10 * saved) / 10:g}% {unit}' or less. {lower}, to reach further."
