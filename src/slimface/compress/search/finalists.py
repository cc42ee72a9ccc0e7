"""Finalists: the most promising candidates are trained shortly, and the best of these scored.

Each round is a study of its own, so that several processes share its work and a killed one
repeats nothing. The only parameter is the candidate's number.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from slimface.compress.search.candidates import Candidate, Ground
from slimface.compress.search.fit import fitted
from slimface.compress.search.proxy import Repeated, ShortTraining
from slimface.compress.search.study import finished, owner, running
from slimface.compress.search.tasks import Judges
from slimface.core.value import Value
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.network import Network
from slimface.step import Context

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_CANDIDATE = "candidate"
_POLL_SECONDS = 1.0


class Finals(Value):
    """How many candidates come into each round, and what happens there."""

    trained: int = Field(default=16, ge=0)
    """The best by the proxy, to be trained; 0: none, and the proxy decides."""

    training: ShortTraining = ShortTraining()
    verified: int = Field(default=4, ge=0)
    """The best after training, to be scored by average precision or accuracy; 0: none."""

    on: Judges = "held_out"
    """Score on the training pictures that are held out, so that the validation pictures stay
    unseen until the end, or on those."""

    longest_px: int | None = Field(default=None, ge=64)
    """Size at which faces are looked for; None: that of the pictures."""


class Round:
    """A round of the finals: a queue of candidates, shared by all processes of the search."""

    def __init__(self, study: "Study", work: Callable[[int], float]) -> None:
        self.study = study
        self._work = work

    def enter(self, numbers: Iterable[int]) -> None:
        """Queue those candidates that are not done, queued or in somebody's hands."""
        from optuna.trial import TrialState

        alive = {trial.number for trial in running(self.study)}
        states = (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
        known = {
            _number_of(trial)
            for trial in self.study.get_trials(deepcopy=False, states=states)
            if trial.state != TrialState.RUNNING or trial.number in alive
        }
        for number in numbers:
            if number not in known:
                self.study.enqueue_trial({}, user_attrs={_CANDIDATE: number})

    def results(self) -> dict[int, float]:
        """Return the value of each candidate that is done."""
        return {_number_of(trial): float(trial.values[0]) for trial in finished(self.study)}

    def run(self, numbers: list[int], track: Callable[..., Any], what: str) -> dict[int, float]:
        """Do what is queued, wait for what others do, and return the values of ``numbers``."""
        self.enter(numbers)
        missing = [number for number in numbers if number not in self.results()]
        for _ in track(self._work_off(numbers), what, total=len(missing)):
            pass
        results = self.results()
        return {number: results[number] for number in numbers}

    def _work_off(self, numbers: list[int]) -> Iterable[int]:
        while set(numbers) - set(self.results()):
            number = self._next()
            if number is not None:
                yield number
            else:
                # Somebody else is at it; should that process die, its work is queued again.
                time.sleep(_POLL_SECONDS)
                self.enter(numbers)

    def _next(self) -> int | None:
        """Do one queued candidate; None if there is none."""
        from optuna.trial import TrialState

        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        trial = self.study.ask()
        number = trial.user_attrs.get(_CANDIDATE)
        if number is None:
            # Another process was quicker, and Optuna has begun a trial of nothing.
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        for name, note in owner().items():
            trial.set_user_attr(name, note)
        try:
            value = self._work(number)
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        self.study.tell(trial, value)
        return int(number)


def _number_of(trial: "FrozenTrial") -> int:
    return int(trial.user_attrs.get(_CANDIDATE, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Arena:
    """Where the finals of a search take place."""

    finals: Finals
    ground: Ground
    context: Context
    crops: Repeated | None
    """What candidates are trained on; None if they are not trained."""

    @classmethod
    def of(cls, finals: Finals, ground: Ground, context: Context) -> Self:
        """Make room, and cut the training crops if there is to be a training."""
        (context.folder / "finalists").mkdir(exist_ok=True)
        crops = finals.training.crops(ground.bench, context) if finals.trained else None
        return cls(finals, ground, context, crops)

    def train(self, candidate: Candidate) -> float:
        """Fit a candidate to its budgets, train it, keep it, and return its held-out loss."""
        detector = self.ground.mended(fitted(self.ground, candidate.widths))
        if self.crops is not None:
            self.finals.training(detector, self.crops, self.ground.bench)
        save(detector, self._path(candidate))
        return self.ground.bench.loss(detector)

    def restored(self, candidate: Candidate) -> Network:
        """Return a candidate as its training has left it; made again if that was elsewhere."""
        path = self._path(candidate)
        if not path.exists():
            self.train(candidate)
        return load_checkpoint(path).network

    def score(self, detector: Network) -> float:
        """Return what a detector is worth on the pictures that decide."""
        bench, finals = self.ground.bench, self.finals
        return bench.task.score(detector, finals.on, bench.device, finals.longest_px)

    def _path(self, candidate: Candidate) -> Path:
        return self.context.folder / "finalists" / f"{candidate.number:05d}.safetensors"
