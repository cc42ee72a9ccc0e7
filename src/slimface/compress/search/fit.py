"""Fit: a finalist's widths are corrected until its exported file meets the budgets.

The latency table is good to a few per cent, and the best of a thousand candidates are those, too,
that it flatters most.
"""

from functools import partial

import numpy as np

from slimface.compress.prune.allocate import Keep
from slimface.compress.prune.descent import Floats
from slimface.compress.prune.measured import nearest_measured
from slimface.compress.search.bounds import Count
from slimface.compress.search.candidates import Ground
from slimface.model.cost import CostModel, Measured, Meter


def fitted(ground: Ground, widths: Floats) -> Floats:
    """Return widths in the same proportions whose exported file costs what was asked for.

    Those that are given if no budget is measured, or if they do already.

    Args:
        ground: Of the search.
        widths: Within its bounds, as predicted. Shape ``(groups,)``.

    Raises:
        MissingError, ParityError: The detector cannot be exported or run.
    """
    surface = ground.surface
    costs = surface.costs
    meters: dict[Measured, Meter] = {}
    for bound in surface.bounds:
        unit = bound.budget.unit
        if unit == "ms" or unit == "size":
            meters[unit] = partial(_metered, bound.count)
    if not meters:
        return widths
    rates = 1 - widths / costs.sizes
    tried: list[Floats] = []

    def allocate(paced: CostModel) -> tuple[dict[str, int], Keep]:
        # The first file is the candidate's as it was judged.
        tried.append(surface.by(paced.meters).place(rates) if tried else widths)
        return ground.removal(tried[-1])

    budgets = [bound.budget for bound in surface.bounds]
    found = nearest_measured(ground.detector, ground.groups, costs, budgets, allocate, meters)
    return costs.sizes - np.array([float(found.removed[name]) for name in costs.names])


def _metered(count: Count, widths: Floats) -> Floats:
    cost: Floats = np.asarray(count(widths))
    return cost
