"""Samplers: who proposes the next rates."""

import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Sampler = Literal["tpe", "gp", "random"]
"""``tpe``: tree-structured Parzen estimators, milliseconds a proposal. ``gp``: a Gaussian process,
about a second a proposal and rising: for candidates that are dear."""


def make_sampler(kind: Sampler, seed: int, warmup: int) -> "BaseSampler":
    """Return a sampler that proposes at random until ``warmup`` candidates are known.

    Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (TPE);
    Falkner et al., "BOHB", ICML 2018, arXiv:1807.01774 (multivariate TPE).
    """
    import optuna

    with warnings.catch_warnings():
        # Optuna calls options experimental that it has had for years.
        warnings.simplefilter("ignore")
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if kind == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=warmup, deterministic_objective=True
            )
        # What other processes are trying counts as bad until they have told.
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=warmup, multivariate=True, constant_liar=True
        )
