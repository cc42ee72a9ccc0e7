"""Surface: the allocations that meet budgets and waste nothing of them.

A draw of rates says in which proportion groups lose channels; the surface says how many. So every
draw is a candidate, and none has to be thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from slimface.compress.prune.descent import Floats, alone, paying_widths
from slimface.core.budget import Budget
from slimface.errors import BudgetError
from slimface.model.cost import CostModel, Measured, Meter

_IDLE = 0.005
"""Groups that can save less than this of what has to be saved are idle."""


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """One budget of a search, for one model."""

    budget: Budget
    before: float
    """The cost before any cut."""

    limit: float
    """The most that may be left."""

    count: Callable[[Floats], float]
    """Widths of the groups -> cost."""

    steady: bool = True
    """Whether the cost never rises when a channel goes, which is not so of milliseconds."""

    @property
    def meter(self) -> Meter:
        """The same count for widths of shape ``(..., groups)``."""
        return partial(np.apply_along_axis, self.count, -1)

    def by(self, meter: Meter, whole: Floats) -> "Bound":
        """Return the same bound for another way to count.

        Args:
            meter: Widths of the groups -> cost.
            whole: Widths before any cut.
        """
        before = float(meter(whole))
        limit = self.budget.target(before)
        return replace(self, before=before, limit=limit, count=lambda widths: float(meter(widths)))


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """All allocations within some bounds from which no channel need have gone."""

    costs: CostModel
    bounds: tuple[Bound, ...]
    worth: Floats
    """Shape ``(groups,)``: of what has to be saved, the share that narrowing the group alone can
    save; 0 for idle groups, which save next to nothing and stay whole if the others suffice."""

    _group: np.ndarray
    """Shape ``(steps,)``: the group of each step of all groups down to their floors."""

    _drop: Floats
    """Channels that the step takes."""

    _middle: Floats
    """Share of the group that is gone in the middle of the step."""

    @classmethod
    def of(
        cls,
        costs: CostModel,
        bounds: Sequence[Bound],
        *,
        max_rate: float = 0.9,
        multiple_of: int = 1,
    ) -> "Surface":
        """Lay out all steps that groups can take.

        Args:
            costs: The groups and their sizes.
            bounds: What has to be met, all together. Under milliseconds, groups only take widths
                at which the network is faster than at all larger ones.
            max_rate: Share of a group that may go at most; one channel always stays.
            multiple_of: Widths that stay are multiples of this, or whole.

        Raises:
            BudgetError: A bound is out of reach, or all are met before anything is removed.
        """
        group, drop, middle = [], [], []
        worth = np.zeros(len(costs.sizes))
        for i, size in enumerate(costs.sizes.tolist()):
            floor = max(int(np.ceil((1 - max_rate) * size - 1e-9)), 1)
            widths = np.arange(-(-floor // multiple_of) * multiple_of, size, multiple_of)
            for bound in bounds:
                taken = alone(costs, i, bound.meter)
                if not bound.steady:
                    widths = np.intersect1d(widths, paying_widths(taken))
                saved = bound.before - taken[widths - 1].min(initial=bound.before)
                worth[i] = max(worth[i], saved / max(bound.before - bound.limit, 1e-9))
            wider = size
            for width in widths[::-1].tolist():
                group.append(i)
                drop.append(wider - width)
                middle.append(1 - (wider + width) / 2 / size)
                wider = width
        surface = cls(
            costs,
            tuple(bounds),
            np.where(worth < _IDLE, 0.0, worth),
            np.array(group, dtype=np.intp),
            np.array(drop, dtype=np.float64),
            np.array(middle, dtype=np.float64),
        )
        surface._check()
        return surface

    @property
    def meters(self) -> dict[Measured, Meter]:
        """How the bounds count what files are measured for; widths of shape ``(..., groups)``."""
        found: dict[Measured, Meter] = {}
        for bound in self.bounds:
            unit = bound.budget.unit
            if unit == "ms" or unit == "size":
                found[unit] = bound.meter
        return found

    def place(self, rates: Floats) -> Floats:
        """Return the widths that these rates, times a common factor, have on the surface.

        Groups with a rate of 0 and idle ones lose channels only if nothing else meets the bounds.

        Args:
            rates: Shape ``(groups,)``, from 0 to 1.

        Returns:
            Widths within all bounds, to one channel: none that could be given back was taken.

        Raises:
            BudgetError: No factor meets the bounds.
        """
        rate = np.where(self.worth > 0, rates, 0.0)[self._group]
        with np.errstate(divide="ignore"):
            when = np.where(rate > 1e-6, self._middle / np.maximum(rate, 1e-6), 1e9 + self._middle)
        order = np.argsort(when, kind="stable")
        steady = [bound for bound in self.bounds if bound.steady]
        low, high = 0, len(order)
        while low < high:
            half = (low + high) // 2
            if _met(steady, self._widths(order[:half])):
                high = half
            else:
                low = half + 1
        while low <= len(order):
            widths = self._widths(order[:low])
            if _met(self.bounds, widths):
                return self._given_back(widths, order[:low])
            low += 1
        raise BudgetError(
            f"The budgets {self._said()} cannot be met together in these proportions.\n"
            "Ask for less, or raise the largest rate."
        )

    def relaxed(self, slack: float) -> "Surface":
        """Return the surface with the first bound a share of the way towards the whole model."""
        first, *others = self.bounds
        limit = first.limit + slack * (first.before - first.limit)
        return replace(self, bounds=(replace(first, limit=limit), *others))

    def by(self, meters: Mapping[Measured, Meter]) -> "Surface":
        """Return the surface with what is measured counted by these meters."""
        whole = self.costs.sizes.astype(np.float64)
        bounds = list(self.bounds)
        for i, bound in enumerate(bounds):
            unit = bound.budget.unit
            if (unit == "ms" or unit == "size") and unit in meters:
                bounds[i] = bound.by(meters[unit], whole)
        return replace(self, bounds=tuple(bounds))

    def costs_of(self, widths: Floats) -> list[float]:
        """Return what each bound counts."""
        return [bound.count(widths) for bound in self.bounds]

    def _given_back(self, widths: Floats, taken: np.ndarray) -> Floats:
        """Give back, last taken first, what the bounds can bear."""
        stopped: set[int] = set()
        for step in taken[::-1].tolist():
            i = int(self._group[step])
            if i in stopped:
                continue
            wider = widths.copy()
            wider[i] += self._drop[step]
            if _met(self.bounds, wider):
                widths = wider
            else:
                stopped.add(i)
        return widths

    def _widths(self, steps: np.ndarray) -> Floats:
        gone = np.bincount(
            self._group[steps], weights=self._drop[steps], minlength=len(self.costs.sizes)
        )
        return np.asarray(self.costs.sizes - gone)

    def _check(self) -> None:
        whole, least = self._widths(np.arange(0)), self._widths(np.arange(len(self._group)))
        if _met(self.bounds, whole):
            raise BudgetError(
                f"The budget {self._said()} is met before anything is removed, so there is "
                "nothing to search.\nAsk for less."
            )
        for bound in self.bounds:
            cost = bound.count(least)
            if cost > bound.limit:
                saved = int(1000 * (1 - cost / bound.before)) / 10
                raise BudgetError(
                    f"The budget {bound.budget} ({bound.limit:,.6g} of {bound.before:,.6g} "
                    f"{bound.budget.unit}) is out of reach: the least that can be is {cost:,.6g}.\n"
                    f"Ask for '-{saved:g}% {bound.budget.unit}' or less, or raise the largest rate."
                )

    def _said(self) -> str:
        return " and ".join(str(bound.budget) for bound in self.bounds)


def _met(bounds: Sequence[Bound], widths: Floats) -> bool:
    return all(bound.count(widths) <= bound.limit for bound in bounds)
