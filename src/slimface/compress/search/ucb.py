"""The published way to propose rates: a Gaussian process and an upper confidence bound.

As the package bayesian-optimization 1.4.3 does it, which B-FPGM used: a Matern kernel of one length
scale without noise, normalised targets, no decay of the exploration.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize, minimize_scalar
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from slimface.compress.prune.descent import Floats

KAPPA = 2.576
_JITTER = 1e-6
_LENGTHS = (1e-5, 1e5)
_RANDOM_POINTS = 10_000
_CLIMBS = 10


class UcbSampler(BaseSampler):
    """Propose where mean + 2.576 deviations of the process is highest, after random draws.

    Source: Srinivas et al., "Gaussian Process Optimization in the Bandit Setting", ICML 2010,
    arXiv:0912.3995, equation 6, with a constant factor.
    """

    def __init__(self, seed: int, warmup: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._warmup = warmup

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the variables of the trials so far; none until the random ones are over."""
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {} if len(known) < self._warmup else dict(known[0].distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the most promising values."""
        if not search_space:
            return {}
        known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        names = sorted(search_space)
        ranges = [search_space[name] for name in names]
        low = np.array([one.low for one in ranges if isinstance(one, FloatDistribution)])
        high = np.array([one.high for one in ranges if isinstance(one, FloatDistribution)])
        tried = np.array([[one.params[name] for name in names] for one in known])
        sign = 1 if study.direction.name == "MAXIMIZE" else -1
        values = sign * np.array([one.value for one in known], dtype=np.float64)
        best = _highest(_Process(tried, values), low, high, self._rng)
        return dict(zip(names, best.tolist(), strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Draw one value at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


class _Process:
    """A Gaussian process through some points.

    Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1
    and equation 4.17.
    """

    def __init__(self, points: "Floats", values: "Floats") -> None:
        self.points = points
        spread = float(values.std()) or 1.0
        self.targets = (values - values.mean()) / spread
        distances = cdist(points, points)
        grid = np.linspace(np.log(_LENGTHS[0]), np.log(_LENGTHS[1]), 24)
        costs = [self._cost(length, distances) for length in grid]
        i = int(np.argmin(costs))
        around = (grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)])
        finer = minimize_scalar(self._cost, args=(distances,), bounds=around, method="bounded")
        self.length = float(np.exp(finer.x if finer.fun < costs[i] else grid[i]))
        self.factor = self._factor(distances, self.length)
        self.weights = cho_solve(self.factor, self.targets)

    def bound(self, points: "Floats") -> "Floats":
        """Return mean + kappa deviations, in units of the normalised targets."""
        cross = _matern(cdist(points, self.points), self.length)
        inside = solve_triangular(self.factor[0], cross.T, lower=True)
        deviation = np.sqrt(np.maximum(1 - np.square(inside).sum(axis=0), 0))
        return np.asarray(cross @ self.weights + KAPPA * deviation)

    def _factor(self, distances: "Floats", length: float) -> Any:
        kernel = _matern(distances, length) + _JITTER * np.eye(len(distances))
        return cho_factor(kernel, lower=True)

    def _cost(self, log_length: float, distances: "Floats") -> float:
        """Negative log marginal likelihood, up to a constant."""
        try:
            factor = self._factor(distances, float(np.exp(log_length)))
        except np.linalg.LinAlgError:
            return float("inf")
        half = float(self.targets @ cho_solve(factor, self.targets)) / 2
        return half + float(np.log(np.diag(factor[0])).sum())


def _matern(distances: "Floats", length: float) -> "Floats":
    """Smoothness 5/2."""
    scaled = np.sqrt(5) * distances / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _highest(
    process: _Process, low: "Floats", high: "Floats", rng: np.random.Generator
) -> "Floats":
    drawn = rng.uniform(low, high, (_RANDOM_POINTS, len(low)))
    heights = process.bound(drawn)
    best, height = drawn[heights.argmax()], float(heights.max())
    for start in rng.uniform(low, high, (_CLIMBS, len(low))):
        climbed = minimize(
            lambda x: -float(process.bound(x[None])[0]),
            start,
            bounds=list(zip(low, high, strict=True)),
            method="L-BFGS-B",
        )
        if climbed.success and -climbed.fun > height:
            best, height = climbed.x, -float(climbed.fun)
    return np.asarray(np.clip(best, low, high))
