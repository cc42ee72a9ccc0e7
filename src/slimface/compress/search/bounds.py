"""Bounds: what budgets mean for one model, and what exported files say to it."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from slimface.compress.latency import LatencyTable, Track
from slimface.compress.place import Place
from slimface.compress.prune.descent import Floats
from slimface.compress.search.surface import Bound
from slimface.core.budget import Budget
from slimface.model.channels import ChannelGroup
from slimface.model.cost import CostModel, cost_model
from slimface.model.network import Network
from slimface.model.surgery import fold_batch_norms

_ROUNDS = 24
_BYTES = 4
"""Of a weight in a file."""

Count = Callable[[Floats], float]


def bounds_of(
    budgets: Sequence[Budget],
    detector: Network,
    groups: tuple[ChannelGroup, ...],
    costs: CostModel,
    track: Track,
) -> tuple[Bound, ...]:
    """Return how each budget counts, and its limit, for this detector.

    Parameters and MACs follow from widths exactly; milliseconds are those of a latency table, which
    is measured if it has not been, and bytes those of one exported file less the weights that go.

    Args:
        budgets: What has to be met.
        detector: As it is before any cut.
        groups: ``channel_groups(detector)``.
        costs: For pictures of the size that budgets without one mean.
        track: May draw bars.

    Raises:
        MissingError, ParityError: The detector cannot be exported or measured.
        UsageError: Nothing can be exported for a runtime.
    """
    bounds = []
    whole = np.asarray(costs.sizes, dtype=np.float64)
    for budget in budgets:
        count = _count(budget, detector, groups, costs, track)
        before = count(whole)
        steady = budget.unit != "ms"
        bounds.append(Bound(budget, before, budget.target(before), count, steady))
    return tuple(bounds)


def measure(
    budgets: Sequence[Budget], detectors: Sequence[Network], costs: CostModel
) -> list[tuple[float | None, ...]]:
    """Export detectors and return what their files cost, measured side by side.

    Args:
        budgets: What to measure.
        detectors: All of one architecture.
        costs: For the size of pictures that budgets without one mean.

    Returns:
        For each detector a value for each budget: milliseconds or bytes; None for what is counted.
    """
    columns: list[Sequence[float | None]] = []
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, list[Path]] = {}
        for budget in budgets:
            if not budget.is_measured:
                columns.append([None] * len(detectors))
                continue
            place = place_of(budget, costs)
            if str(place) not in files:
                folder = Path(name) / str(len(files))
                folder.mkdir()
                files[str(place)] = [
                    place.export(one, folder / str(i)) for i, one in enumerate(detectors)
                ]
            found = files[str(place)]
            if budget.unit == "ms":
                columns.append(place.network_ms(found, rounds=_ROUNDS).round(4).tolist())
            else:
                columns.append([float(_bytes(file)) for file in found])
    return list(zip(*columns, strict=True))


def place_of(budget: Budget, costs: CostModel) -> Place:
    """Return where a budget is measured."""
    if not budget.runtime:
        return Place(height_px=costs.height_px, width_px=costs.width_px)
    return Place.of(budget, height_px=costs.height_px, width_px=costs.width_px)


def _count(
    budget: Budget,
    detector: Network,
    groups: tuple[ChannelGroup, ...],
    costs: CostModel,
    track: Track,
) -> Count:
    unit = budget.unit
    if unit == "ms":
        table = LatencyTable.measure(detector, place_of(budget, costs), groups=groups, track=track)
        return lambda widths: float(table.ms(widths))
    if unit == "size":
        with tempfile.TemporaryDirectory() as name:
            file = place_of(budget, costs).export(detector, Path(name) / "whole")
            before = _bytes(file)
        # Exported files have their batch norms folded.
        folded = cost_model(fold_batch_norms(detector), groups, 64, 64)
        whole = folded.count("params", folded.sizes)
        return lambda widths: before - _BYTES * float(whole - folded.count("params", widths))
    size = budget.size_px
    if size is not None and size != (costs.height_px, costs.width_px):
        costs = cost_model(detector, groups, *size)
    return lambda widths: float(costs.count(unit, widths))


def _bytes(file: Path) -> int:
    """Of all files in its folder: a format may keep its weights in one beside."""
    return sum(part.stat().st_size for part in file.parent.iterdir())
