"""Result: what a search has found, as it is recorded."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from slimface.compress.search.candidates import Candidate, Ground
from slimface.core.budget import Budget
from slimface.core.value import Value
from slimface.model.channels import channel_groups
from slimface.model.network import Network

if TYPE_CHECKING:
    from slimface.compress.search.step import Search


log = logging.getLogger(__name__)


class Found(Value):
    """One candidate."""

    number: int
    """Of its trial in the study."""

    loss: float
    """By the proxy: lower is better."""

    costs: tuple[float, ...]
    """In the order of the budgets."""

    rates: dict[str, float]
    """Share of its channels that each variable has lost, after the projection."""

    widths: tuple[int, ...]
    """Of the coupled groups, in the order of ``groups``. Measured files have corrected them."""

    trained_loss: float | None = None
    score: float | None = None
    """Average precision or accuracy, between 0 and 1."""

    measured: tuple[float | None, ...] = ()
    """What its exported file costs, in the order of the budgets; None for what is counted."""


class Finding(Value):
    """What a search has found."""

    kind: Literal["search"] = "search"
    model: str
    budgets: tuple[Budget, ...]
    before: tuple[float, ...]
    """Cost of the whole model, in the order of the budgets."""

    limits: tuple[float, ...]
    measured_before: tuple[float | None, ...] = ()
    """Of the whole model's file, measured beside those of the candidates."""

    parent_loss: float
    """Of the whole model, by the same proxy."""

    groups: tuple[str, ...]
    """The coupled groups."""

    sizes: tuple[int, ...]
    """Their channels before any cut."""

    decided_by: Literal["proxy", "training", "average precision", "accuracy"]
    scored_by: Literal["average precision", "accuracy"]
    best: Found
    front: tuple[Found, ...]
    """Candidates that no other beats in loss and in the first cost, cheapest first."""

    finalists: tuple[Found, ...]
    """Those trained or scored, best first."""

    losses: tuple[float, ...] = Field(repr=False)
    """By the proxy, of all candidates in their order."""

    points: tuple[float, ...] = Field(repr=False)
    """First cost of all candidates in their order."""


def tell(
    search: "Search",
    ground: Ground,
    candidates: Sequence[Candidate],
    trained: Mapping[int, float],
    scored: Mapping[int, float],
) -> Finding:
    """Put together what a search has found; ``best`` is decided by the dearest sign there is."""

    def found(one: Candidate) -> Found:
        return Found(
            number=one.number,
            loss=one.loss,
            costs=one.costs,
            rates=ground.space.values(one.widths),
            widths=tuple(one.widths.astype(int).tolist()),
            trained_loss=trained.get(one.number),
            score=scored.get(one.number),
        )

    bounds = ground.surface.bounds
    meeting = [
        one
        for one in candidates
        if all(cost <= bound.limit for cost, bound in zip(one.costs, bounds, strict=True))
    ]
    finalists = sorted(
        (one for one in meeting if one.number in trained or one.number in scored),
        key=lambda one: _rank(one, trained, scored),
    )
    best = finalists[0] if finalists else min(meeting, key=lambda one: one.loss)
    scored_by = ground.bench.task.score_name
    return Finding(
        model=ground.detector.spec.name,
        budgets=search.budgets,
        before=tuple(bound.before for bound in bounds),
        limits=tuple(bound.limit for bound in bounds),
        parent_loss=ground.bench.parent_loss,
        groups=ground.surface.costs.names,
        sizes=tuple(ground.surface.costs.sizes.tolist()),
        decided_by=scored_by if scored else "training" if trained else "proxy",
        scored_by=scored_by,
        best=found(best),
        front=tuple(found(one) for one in _front(candidates)),
        finalists=tuple(found(one) for one in finalists),
        losses=tuple(one.loss for one in candidates),
        points=tuple(one.costs[0] for one in candidates),
    )


def refitted(one: Found, ground: Ground, made: Network) -> Found:
    """Return a finalist with the widths that its file was fitted to."""
    sizes = {group.name: group.size for group in channel_groups(made)}
    widths = np.array([sizes[name] for name in ground.surface.costs.names], dtype=np.float64)
    return one.model_copy(
        update={
            "costs": tuple(ground.surface.costs_of(widths)),
            "rates": ground.space.values(widths),
            "widths": tuple(widths.astype(int).tolist()),
        }
    )


def confirm(
    finding: Finding,
    few: Sequence[Found],
    before: tuple[float | None, ...],
    after: Sequence[tuple[float | None, ...]],
) -> Finding:
    """Choose the first candidate whose file meets the budgets within their tolerance.

    Args:
        finding: As predicted.
        few: Candidates, best first.
        before: What the whole model's file costs.
        after: What their files cost.
    """
    measured = [
        one.model_copy(update={"measured": costs}) for one, costs in zip(few, after, strict=True)
    ]

    def excess(one: Found) -> float:
        offs = [
            (cost / budget.target(whole) - 1) / budget.tolerance
            for budget, whole, cost in zip(finding.budgets, before, one.measured, strict=True)
            if whole is not None and cost is not None
        ]
        return max(offs)

    meeting = [one for one in measured if excess(one) <= 1]
    best = meeting[0] if meeting else min(measured, key=excess)
    if not meeting:
        log.warning(
            "no file of the best %d candidates meets %s; the nearest costs %s, the whole one %s",
            len(measured),
            " and ".join(map(str, finding.budgets)),
            best.measured,
            before,
        )
    rest = finding.finalists[len(few) :]
    finalists = (*measured, *rest) if finding.finalists else ()
    return finding.model_copy(
        update={"best": best, "finalists": finalists, "measured_before": before}
    )


def _rank(
    one: Candidate, trained: Mapping[int, float], scored: Mapping[int, float]
) -> tuple[float, float, float]:
    """Scored ones come before trained ones, whatever their loss."""
    return (
        -scored.get(one.number, -1.0),
        trained.get(one.number, np.inf),
        one.loss,
    )


def _front(candidates: Sequence[Candidate]) -> list[Candidate]:
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.costs[0], one.loss)):
        if not front or one.loss < front[-1].loss:
            front.append(one)
    return front
