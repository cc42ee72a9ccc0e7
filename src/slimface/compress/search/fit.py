"""Fit: a finalist's widths are corrected until its exported file meets the budgets.

The latency table is good to a few per cent, and the best of a thousand candidates are those, too,
that it flatters most.
"""

import numpy as np

from slimface.compress.prune.allocate import Keep
from slimface.compress.prune.descent import Floats
from slimface.compress.prune.measured import nearest_measured
from slimface.compress.search.candidates import Ground
from slimface.model.cost import CostModel


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
    meters = surface.meters
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
    gone: Floats = np.array([float(found.removed[name]) for name in costs.names])
    return np.subtract(costs.sizes, gone)
