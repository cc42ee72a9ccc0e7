"""Search: the step that finds the rates that lose least under a budget, and cuts by them."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

import numpy as np
from pydantic import Field

from slimface.compress.look import Look
from slimface.compress.prune.allocate import CostAware, Global
from slimface.compress.prune.importance import DATA_DRIVEN, Fpgm, Importance, importances
from slimface.compress.search.bounds import bounds_of, measure
from slimface.compress.search.candidates import (
    Candidate,
    Course,
    Ground,
    candidate_of,
    candidates_of,
    draw,
    propose,
)
from slimface.compress.search.finalists import Arena, Finals, Round
from slimface.compress.search.proxy import Proxy
from slimface.compress.search.result import Finding, confirm, refitted, tell
from slimface.compress.search.samplers import Sampler
from slimface.compress.search.space import Space, Variables
from slimface.compress.search.study import JOURNAL, open_study
from slimface.compress.search.surface import Surface
from slimface.core.budget import Budget
from slimface.core.spec import CascadeSpec
from slimface.core.value import Value
from slimface.errors import BudgetError, UsageError
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import fingerprint
from slimface.model.cost import cost_model
from slimface.model.network import Network
from slimface.order import FLOAT, LEARNT, NORMS, Terms
from slimface.step import Context

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)
Rate = Annotated[float, Field(ge=0, le=1)]


class Search(Value):
    """Search the rate of each part of a network, under one or several budgets.

    Every draw is projected onto the budgets, so none is wasted. A proxy judges all candidates, the
    best of them are trained shortly, and the best of these scored: detectors by average precision,
    classifiers by accuracy. All that
    is finished stays in an Optuna study: a killed search goes on, and several processes or
    machines may share it.
    """

    kind: Literal["search"] = "search"
    budgets: tuple[Budget, ...] = Field(min_length=1)
    """All have to be met."""

    trials: int = Field(default=1000, gt=0)
    """Different candidates to judge, over all processes."""

    sampler: Sampler = "tpe"
    warmup: int = Field(default=60, ge=0)
    """Candidates drawn at random before the sampler learns from them."""

    importance: Importance = Fpgm()
    look: Look = Look()
    """Used by the importances that need pictures."""

    variables: Variables = 24
    """What gets a rate of its own: a number of parts, a published division, or layers by name."""

    max_rate: float = Field(default=0.9, gt=0, lt=1)
    """Share of a coupled group that may go at most."""

    multiple_of: int = Field(default=1, gt=0)
    starts: tuple[dict[str, Rate], ...] = ()
    """Rates by variable to be tried first, beside those of the plain allocators."""

    proxy: Proxy = Proxy()
    finals: Finals = Finals()
    front: bool = False
    """Search the whole front between the first budget and the untouched model: loss against that
    budget's cost. What is returned meets the budget all the same."""

    minutes: float | None = Field(default=None, gt=0)
    """Draw no further candidate after this time, in this process."""

    storage: str = ""
    """URL of a database that several machines share; empty: a file in the run folder."""

    study: str = "slimface"
    """Name of the study in its storage."""

    height_px: int = 480
    """Input height for which MACs are counted, unless a budget names another or the network takes
    only one."""

    width_px: int = 640

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(
            needs=frozenset({FLOAT, LEARNT, NORMS}),
            tasks=frozenset({"detection", "classification"}),
        )

    def __call__(self, detector: N, context: Context) -> N:
        """Return the best candidate, after its short training if there was one.

        Raises:
            BudgetError: The budgets cannot be met.
            CheckpointError: The weights are damaged.
            ProtocolError: The study is of another model, other pictures or other settings.
            TraceError: The channels of the detector cannot be followed.
            UsageError: There are no pictures, or a name fits no layer.
        """
        finding, best = self.find(detector, context)
        context.record("search", finding)
        return best

    def find(self, detector: N, context: Context) -> tuple[Finding, N]:
        """As calling the step; return what was found along with the best candidate."""
        ground = self.ground(detector, context)
        study = self._open("", ground, context)
        propose(study, ground.space, self.proposals(ground))
        left = max(self.trials - len(candidates_of(study)), 0)
        for _ in context.track(draw(study, ground, self._course(context)), "searching", total=left):
            pass
        candidates = candidates_of(study)
        if not candidates:
            raise UsageError(
                "The time was over before the first candidate was judged.\nAllow more minutes."
            )
        arena = Arena.of(self.finals, ground, context)
        trained, scored = self._finals(arena, study, candidates)
        finding = tell(self, ground, candidates, trained, scored)
        if any(budget.is_measured for budget in self.budgets):
            finding = self._confirmed(finding, arena, candidates)
        best = arena.restored(_numbered(candidates, finding.best.number))
        return finding, cast(N, best)

    def _confirmed(self, finding: Finding, arena: Arena, candidates: list[Candidate]) -> Finding:
        """Export the best few and let their files decide: the best of those within tolerance."""
        few = finding.finalists[: max(self.finals.verified, 1)] or (finding.best,)
        made = [arena.restored(_numbered(candidates, one.number)) for one in few]
        few = tuple(
            refitted(one, arena.ground, network) for one, network in zip(few, made, strict=True)
        )
        whole = arena.ground.detector
        before, *after = measure(self.budgets, [whole, *made], arena.ground.surface.costs)
        return confirm(finding, few, before, after)

    def ground(self, detector: Network, context: Context) -> Ground:
        """Check everything that can be checked before the first candidate, and cut the crops.

        Raises:
            BudgetError, CheckpointError, TraceError, UsageError: As calling the step.
        """
        if isinstance(detector.spec, CascadeSpec):
            raise UsageError(
                f"{detector.spec.name} is a cascade of networks, which no single loss judges.\n"
                "Prune its networks one by one, with the step prune_net."
            )
        detector = detector.eval()
        groups = channel_groups(detector)
        costs = cost_model(
            detector, groups, *(detector.input_size or (self.height_px, self.width_px))
        )
        bounds = bounds_of(self.budgets, detector, groups, costs, context.track)
        surface = Surface.of(costs, bounds, max_rate=self.max_rate, multiple_of=self.multiple_of)
        space = Space.over(groups, costs, self.variables, surface.worth)
        probe = self.look(context) if isinstance(self.importance, DATA_DRIVEN) else None
        scores = importances(detector, groups, self.importance, probe)
        bench = self.proxy.bench(detector, context)
        return Ground(detector, groups, scores, space, surface, bench)

    def _open(self, part: str, ground: Ground, context: Context) -> "Study":
        task = ground.bench.task
        identity = {
            "model": fingerprint(ground.detector),
            "pictures": task.learn.fingerprint() + task.check.fingerprint(),
        }
        times = [bound.before for bound in ground.surface.bounds if not bound.steady]
        if times:
            # Those of another machine, or of another day's table, are other milliseconds.
            identity["milliseconds"] = " ".join(f"{ms:.3f}" for ms in times)
        finals = Finals()
        if part:
            # How many enter may change; whether those that are scored were trained may not.
            free = {"trained": min(self.finals.trained, 1), "verified": 0}
            finals = self.finals.model_copy(update=free)
        settings = self.model_copy(update={**_FREE, "finals": finals})
        return open_study(
            self.storage or context.folder / JOURNAL,
            f"{self.study}-{part}" if part else self.study,
            identity | {"settings": settings.fingerprint()},
            _DIRECTIONS.get(part, ("minimize",) * (1 + self.front)),
        )

    def _course(self, context: Context) -> Course:
        return Course(
            self.trials, self.sampler, self.warmup, context.seed, self.minutes, self.front
        )

    def proposals(self, ground: Ground) -> list[Mapping[str, float]]:
        """Rates that the plain allocators come to, then those that were asked for."""
        surface, costs = ground.surface, ground.surface.costs
        uniform = surface.place(np.ones(len(costs.names)))
        starts: list[Mapping[str, float]] = [ground.space.values(uniform)]
        gone = float(1 - uniform.sum() / costs.sizes.sum())
        rules: list[Global | CostAware] = [Global(rate=gone), CostAware(rate=gone)]
        rules += [CostAware(budget=one) for one in self.budgets if one.unit == "ms"]
        metered = replace(costs, meters=surface.meters)
        for rule in rules:
            try:
                removed = rule(ground.groups, ground.scores, metered)
            except BudgetError as error:
                log.info("no start by value per %s: %s", rule.budget, error)
                continue
            widths = costs.sizes - np.array([removed[name] for name in costs.names])
            starts.append(ground.space.values(widths.astype(np.float64)))
        return [*starts, *self.starts]

    def _finals(
        self, arena: Arena, study: "Study", candidates: list[Candidate]
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Train and score the best; numbers of candidates -> loss, and -> average precision."""
        meeting = [one for one in candidates if _meets(arena.ground.surface, one)]
        best = [one.number for one in sorted(meeting, key=lambda one: one.loss)]
        track = arena.context.track
        trained: dict[int, float] = {}
        if self.finals.trained:
            training = Round(
                self._open("trained", arena.ground, arena.context),
                # Another process may have queued one that was not finished a moment ago.
                lambda number: arena.train(candidate_of(study, number)),
            )
            trained = training.run(best[: self.finals.trained], track, "training the best")
            best = sorted(trained, key=trained.__getitem__)
        if not self.finals.verified:
            return trained, {}

        def score(number: int) -> float:
            return arena.score(arena.restored(candidate_of(study, number)))

        scoring = Round(self._open("verified", arena.ground, arena.context), score)
        return trained, scoring.run(best[: self.finals.verified], track, "scoring the best")


def _numbered(candidates: list[Candidate], number: int) -> Candidate:
    return next(one for one in candidates if one.number == number)


_FREE = {"trials": 1, "minutes": None, "storage": "", "study": "", "warmup": 0, "sampler": "tpe"}
"""Settings that may change when a search goes on, as whatever they are set to here."""

_DIRECTIONS = {"trained": ("minimize",), "verified": ("maximize",)}


def _meets(surface: Surface, candidate: Candidate) -> bool:
    return all(
        cost <= bound.limit for bound, cost in zip(surface.bounds, candidate.costs, strict=True)
    )
