"""Candidates: draw rates, cut, judge, tell; again until there are enough."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from slimface.compress.prune.allocate import Keep, choose
from slimface.compress.prune.descent import Floats
from slimface.compress.repair.reconstruct import Stays, remaining_outputs
from slimface.compress.search.proxy import Bench
from slimface.compress.search.samplers import Sampler, make_sampler
from slimface.compress.search.space import Space
from slimface.compress.search.study import finished, owner, running
from slimface.compress.search.surface import Surface
from slimface.model.channels import ChannelGroup
from slimface.model.network import Network
from slimface.model.surgery import remove_channels

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial
    from torch import Tensor

log = logging.getLogger(__name__)

SLACK = "slack"
"""The variable of a search for a whole front: 0 at the budget, 1 at the whole model."""

_UNDEFINED = "undefined"
"""Note on a trial whose loss was not a number."""

_REPEATS = 200
"""So many draws of known candidates in a row end a search: there are hardly any others."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all candidates of a search have in common."""

    detector: Network
    groups: tuple[ChannelGroup, ...]
    scores: Mapping[str, "Tensor"]
    space: Space
    surface: Surface
    bench: Bench

    def removal(self, widths: Floats) -> tuple[dict[str, int], Keep]:
        """Return how many channels each group loses to have these widths, and which stay."""
        gone = (self.surface.costs.sizes - widths).astype(int).tolist()
        removed = dict(zip(self.surface.costs.names, gone, strict=True))
        return removed, choose(self.scores, removed)

    def cut(self, widths: Floats) -> Network:
        """Return the detector at these widths, its least important channels removed."""
        return self._cut(widths)[0]

    def judge(self, widths: Floats) -> float:
        """Return what the proxy says of these widths."""
        return self.bench.judge(*self._cut(widths))

    def mended(self, widths: Floats) -> Network:
        """Return the detector at these widths after the repair of the proxy."""
        return self.bench.mended(*self._cut(widths))

    def _cut(self, widths: Floats) -> tuple[Network, Stays]:
        """The detector at these widths, and what stays of its layers where a repair asks for it."""
        _, keep = self.removal(widths)
        solved = self.bench.answers is not None
        stays = remaining_outputs(self.detector, keep, self.groups) if solved else {}
        return remove_channels(self.detector, keep, groups=self.groups), stays


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A finished candidate."""

    number: int
    values: dict[str, float]
    """The rates that were drawn, by variable."""

    widths: Floats
    loss: float
    costs: tuple[float, ...]
    """As the bounds of the search count them."""

    @classmethod
    def of(cls, trial: "FrozenTrial") -> "Candidate":
        """Read a complete trial."""
        attributes = trial.user_attrs
        return cls(
            trial.number,
            {name: value for name, value in trial.params.items() if name != SLACK},
            np.array(attributes["widths"], dtype=np.float64),
            float(trial.values[0]),
            tuple(attributes["costs"]),
        )


@dataclass(frozen=True, slots=True)
class Course:
    """How candidates are drawn, and when it is enough."""

    trials: int
    sampler: Sampler
    warmup: int
    seed: int
    minutes: float | None = None
    front: bool = False


def candidates_of(study: "Study") -> list[Candidate]:
    """Return the finished candidates, each allocation once, in their order."""
    seen: dict[bytes, Candidate] = {}
    for trial in finished(study):
        candidate = Candidate.of(trial)
        seen.setdefault(candidate.widths.tobytes(), candidate)
    return list(seen.values())


def candidate_of(study: "Study", number: int) -> Candidate:
    """Return a finished candidate, whichever process has put it forward, and when."""
    return Candidate.of(study.get_trials(deepcopy=False)[number])


def propose(study: "Study", space: Space, starts: list[Mapping[str, float]]) -> None:
    """Queue rates to be tried first, unless the study has been begun.

    Raises:
        UsageError: A start names no variable.
    """
    for values in starts:
        space.rates(values)
    if not study.get_trials(deepcopy=False):
        for values in starts:
            study.enqueue_trial({name: values.get(name, 0.0) for name in space.names})


def draw(study: "Study", ground: Ground, course: Course) -> Iterator[Candidate]:
    """Try candidates until the study has enough; yield each that this process has finished."""
    started, repeats = time.monotonic(), 0
    known = {candidate.widths.tobytes(): candidate for candidate in candidates_of(study)}
    best = min((candidate.loss for candidate in known.values()), default=math.inf)
    while len(known) < course.trials and repeats < _REPEATS:
        if course.minutes is not None and time.monotonic() - started > 60 * course.minutes:
            log.info("the time is over after %d candidates", len(known))
            return
        trial = _ask(study, course)
        try:
            candidate, fresh = _try(trial, ground, known, course)
        except _UndefinedError as error:
            trial.set_user_attr(_UNDEFINED, True)
            _fail(study, trial)
            log.warning("candidate %d is left out: %s", trial.number, error)
            repeats += 1
            continue
        except BaseException:
            _fail(study, trial)
            raise
        study.tell(trial, _objectives(candidate, course))
        # Others may have finished some meanwhile.
        known |= {one.widths.tobytes(): one for one in candidates_of(study)}
        repeats = 0 if fresh else repeats + 1
        if not fresh:
            continue
        if candidate.loss < best:
            log.info(
                "candidate %d of %d: loss %.4f, the best so far; %s",
                len(known),
                course.trials,
                candidate.loss,
                said(ground.surface, candidate.costs),
            )
        best = min([best, *(one.loss for one in known.values())])
        yield candidate
    if repeats >= _REPEATS:
        log.info("%d candidates: hardly any others are possible", len(known))


def said(surface: Surface, costs: tuple[float, ...]) -> str:
    """Return costs for people."""
    parts = []
    for bound, cost in zip(surface.bounds, costs, strict=True):
        parts.append(f"{cost:,.6g} {bound.budget.unit} (-{100 * (1 - cost / bound.before):.1f} %)")
    return ", ".join(parts)


class _UndefinedError(Exception):
    """A candidate's loss is not a number."""


def _ask(study: "Study", course: Course) -> "Trial":
    """Ask a sampler whose seed follows from what is known, so that a resumed search goes on."""
    left_out = sum(_UNDEFINED in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    done = len(finished(study)) + len(running(study)) + left_out
    seed = int(np.random.default_rng((course.seed, done)).integers(2**31))
    study.sampler = make_sampler(course.sampler, seed, course.warmup)
    trial = study.ask()
    for name, note in owner().items():
        trial.set_user_attr(name, note)
    return trial


def _try(
    trial: "Trial", ground: Ground, known: Mapping[bytes, Candidate], course: Course
) -> tuple[Candidate, bool]:
    """Judge what the trial proposes; whether it is new."""
    values = {name: trial.suggest_float(name, 0.0, 1.0) for name in ground.space.names}
    slack = trial.suggest_float(SLACK, 0.0, 0.9, step=0.1) if course.front else 0.0
    widths = ground.surface.relaxed(slack).place(ground.space.rates(values))
    twin = known.get(widths.tobytes())
    started = time.process_time()
    loss = ground.judge(widths) if twin is None else twin.loss
    if not math.isfinite(loss):
        raise _UndefinedError(f"its loss is {loss} at the widths {widths.astype(int).tolist()}")
    costs = tuple(ground.surface.costs_of(widths))
    notes: dict[str, Any] = {
        "widths": widths.astype(int).tolist(),
        "costs": list(costs),
        "seconds": round(time.process_time() - started, 3),
    }
    for name, note in notes.items():
        trial.set_user_attr(name, note)
    return Candidate(trial.number, values, widths, loss, costs), twin is None


def _objectives(candidate: Candidate, course: Course) -> list[float]:
    return [candidate.loss, candidate.costs[0]] if course.front else [candidate.loss]


def _fail(study: "Study", trial: "Trial") -> None:
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.FAIL)
