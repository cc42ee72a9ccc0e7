"""Measured budgets: allocate, export, measure beside the parent, correct, and again.

Predictions of milliseconds are good to a few per cent, and of file sizes to less. A budget asks for
more, so the file that is to be delivered is measured, and what is learnt corrects the prediction.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slimface.compress.latency import LatencyTable, Track
from slimface.compress.place import Place
from slimface.compress.prune.allocate import Keep
from slimface.core.budget import Budget
from slimface.errors import BudgetError
from slimface.model.channels import ChannelGroup
from slimface.model.cost import CostModel, Measured, Meter, Unit
from slimface.model.network import Network
from slimface.model.surgery import remove_channels

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Allocate = Callable[[CostModel], tuple[dict[str, int], Keep]]
"""Costs, with meters -> how many channels each group loses, and which stay."""

_TRIES = 6
_ENOUGH = 0.4
"""Stop when a file is off by less than this share of the tolerance: the rest is noise."""

_ROUNDS = 24

_ONE_STEP = 3.0
"""So many tolerances below a budget that is counted can be one channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """An allocation, and what its file was measured to cost."""

    removed: dict[str, int]
    keep: Keep
    costs: CostModel
    before: dict[Measured, float]
    """Unit -> what the parent's file costs."""

    after: dict[Measured, float]
    excess: float
    """How far off the budgets it is, in tolerances: at most 1 is delivered."""

    place: Place
    tries: int = 0

    def report(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {
            "place": str(self.place),
            "before": dict(self.before),
            "after": dict(self.after),
            "tries": self.tries,
        }


def meet_measured(
    detector: Network,
    groups: tuple[ChannelGroup, ...],
    costs: CostModel,
    budgets: Sequence[Budget],
    allocate: Allocate,
    track: Track,
) -> Found:
    """Return an allocation whose exported file was measured to meet the budgets.

    Args:
        detector: What is to be cut.
        groups: Its channel groups.
        costs: Of the same groups.
        budgets: At least one of which is measured.
        allocate: How to meet budgets by prediction.
        track: May draw bars.

    Raises:
        BudgetError: The budgets are out of reach, or no file came near enough.
        MissingError, ParityError: The detector cannot be exported or run.
        UsageError: Nothing can be exported for the runtime.
    """
    place = _place(budgets, costs)
    predictions = _predictions(detector, groups, costs, budgets, place, track)
    best: Found | None = None
    seen: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parent = place.export(detector, folder / "parent")
        before = _measure([parent], predictions, place)[0]
        pace = dict.fromkeys(predictions, 1.0)
        for number in range(1, _TRIES + 1):
            meters = {
                unit: _anchored(predict, before[unit], pace[unit], costs)
                for unit, predict in predictions.items()
            }
            removed, keep = allocate(replace(costs, meters=meters))
            file = place.export(remove_channels(detector, keep, groups=groups), folder / "narrow")
            before, after = _measure([parent, file], predictions, place)
            widths = costs.sizes - np.array([removed[name] for name in costs.names], dtype=float)
            excess = _excess(budgets, _pairs(before, after, costs, widths))
            found = Found(removed, keep, costs, before, after, excess, place, number)
            log.info("try %d: %s", number, _said(found))
            if best is None or abs(excess) < abs(best.excess):
                best = found
            if abs(excess) <= _ENOUGH or removed in seen:
                break
            seen.append(removed)
            for unit, predict in predictions.items():
                pace[unit] = _pace(predict, widths, after[unit] / before[unit], costs)
    assert best is not None
    if abs(best.excess) > 1:
        raise _missed(budgets, best)
    return best


def _place(budgets: Sequence[Budget], costs: CostModel) -> Place:
    size = {"height_px": costs.height_px, "width_px": costs.width_px}
    for budget in sorted(budgets, key=lambda one: one.unit != "ms"):
        if budget.runtime:
            return Place.of(budget, **size)
    return Place(**size)


def _predictions(
    detector: Network,
    groups: tuple[ChannelGroup, ...],
    costs: CostModel,
    budgets: Sequence[Budget],
    place: Place,
    track: Track,
) -> dict[Measured, Meter]:
    """What is measured -> what is proportional to it, roughly."""
    units = {budget.unit for budget in budgets}
    found: dict[Measured, Meter] = {}
    if "ms" in units:
        found["ms"] = LatencyTable.measure(detector, place, groups=groups, track=track).ms
    if "size" in units:
        found["size"] = lambda widths: np.apply_along_axis(
            lambda row: float(costs.count("params", row)), -1, widths
        )
    return found


def _measure(
    files: Sequence[Path], units: Mapping[Measured, Meter], place: Place
) -> list[dict[Measured, float]]:
    found: list[dict[Measured, float]] = [{} for _ in files]
    if "ms" in units:
        for one, ms in zip(found, place.network_ms(files, rounds=_ROUNDS), strict=True):
            one["ms"] = round(float(ms), 4)
    if "size" in units:
        for one, file in zip(found, files, strict=True):
            # A format may keep its weights in a file beside.
            one["size"] = sum(part.stat().st_size for part in file.parent.iterdir())
    return found


def _anchored(predict: Meter, before: float, pace: float, costs: CostModel) -> Meter:
    """Right for the parent, and falling ``pace`` times as fast as predicted."""
    whole = float(predict(costs.sizes.astype(np.float64)))
    return lambda widths: before * (1 - pace * (1 - predict(widths) / whole))


def _pace(predict: Meter, widths: Floats, left: float, costs: CostModel) -> float:
    whole = float(predict(costs.sizes.astype(np.float64)))
    saved = 1 - float(predict(widths)) / whole
    return float(np.clip((1 - left) / max(saved, 1e-6), 0.2, 5))


def _pairs(
    before: Mapping[Measured, float],
    after: Mapping[Measured, float],
    costs: CostModel,
    widths: Floats,
) -> dict[str, tuple[float, float]]:
    """Every cost, counted or measured, of the parent and of the narrow detector."""
    counted: tuple[Unit, ...] = ("params", "macs")
    pairs: dict[str, tuple[float, float]] = {
        unit: (costs.count(unit, costs.sizes), costs.count(unit, widths)) for unit in counted
    }
    return pairs | {unit: (before[unit], after[unit]) for unit in before}


def _excess(budgets: Sequence[Budget], found: Mapping[str, tuple[float, float]]) -> float:
    """Return by how many tolerances the budget that is met least is missed.

    It is negative if all are met with room to spare.
    """
    worst = -np.inf
    for budget in budgets:
        before, after = found[budget.unit]
        off = (after / budget.target(before) - 1) / budget.tolerance
        if not budget.is_measured and -_ONE_STEP < off <= 0:
            off = 0.0
        worst = max(worst, off)
    return float(worst)


def _said(found: Found) -> str:
    return ", ".join(
        f"{before:,.6g} -> {found.after[unit]:,.6g} {'bytes' if unit == 'size' else unit} "
        f"({100 * (found.after[unit] / before - 1):+.1f} %)"
        for unit, before in found.before.items()
    )


def _missed(budgets: Sequence[Budget], best: Found) -> BudgetError:
    asked = " and ".join(str(budget) for budget in budgets)
    return BudgetError(
        f"No file within the tolerance of {asked} was found in {best.tries} tries: the nearest "
        f"went {_said(best)}.\n"
        "Ask for what the nearest has, or try another allocator or multiple_of."
    )
