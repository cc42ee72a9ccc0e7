"""Bounds: what budgets mean for one model."""

from collections.abc import Sequence

import numpy as np

from slimface.compress.prune.descent import countable
from slimface.compress.search.surface import Bound
from slimface.core.budget import Budget
from slimface.model.channels import ChannelGroup
from slimface.model.cost import CostModel, cost_model
from slimface.model.detector import Detector

Size = tuple[int, int]


def bounds_of(
    budgets: Sequence[Budget],
    detector: Detector,
    groups: Sequence[ChannelGroup],
    costs: CostModel,
) -> tuple[Bound, ...]:
    """Return how each budget counts, and its limit, for this detector.

    Args:
        budgets: What has to be met.
        detector: As it is before any cut.
        groups: ``channel_groups(detector)``.
        costs: For pictures of the size that budgets without one mean.

    Raises:
        BudgetError: A cost cannot be told from widths.
    """
    return tuple(_bound(budget, detector, groups, costs) for budget in budgets)


def _bound(
    budget: Budget, detector: Detector, groups: Sequence[ChannelGroup], costs: CostModel
) -> Bound:
    unit = countable(budget)
    size = budget.size_px
    if size is not None and size != (costs.height_px, costs.width_px):
        costs = cost_model(detector, groups, *size)
    whole = np.asarray(costs.sizes, dtype=np.float64)

    def count(widths: np.ndarray) -> float:
        return costs.count(unit, widths)

    before = count(whole)
    return Bound(budget, before, budget.target(before), count)
