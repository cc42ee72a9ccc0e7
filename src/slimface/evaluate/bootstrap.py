"""Bootstrap: how far an average precision would move with other pictures of the same kind.

Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979; the
percentile interval. Pictures are drawn, not faces: faces of one picture stand or fall together.
"""

from typing import NamedTuple

import numpy as np

from slimface.evaluate.average_precision import Doubles, Matches, area
from slimface.evaluate.truth import Mask

RESAMPLES = 1000
LEVEL = 0.95


class Difference(NamedTuple):
    """What pairs of resamples say about two models on the same pictures."""

    low: float
    """Lower end of the interval of second minus first."""

    high: float
    doubt: float
    """Two-sided share of resamples that contradict the sign of the difference, in [0, 1]."""


def resample(
    matches: Matches, counting: Mask, *, resamples: int = RESAMPLES, seed: int = 0
) -> Doubles:
    """Return the average precision of data sets drawn from the pictures, shape ``(resamples,)``.

    Every draw has as many pictures as there are, with replacement. The same seed and number of
    pictures draw the same pictures for any model, so two models can be compared draw by draw.
    Scores keep the stretch of the whole data set. Draws without a face are NaN.
    """
    pictures = len(matches.truth)
    draws = np.random.default_rng(seed)
    chosen = draws.integers(0, max(pictures, 1), (resamples, pictures))
    offsets = np.arange(resamples)[:, None] * pictures
    # Counts stay far below 2 ** 24, so single precision adds them exactly.
    weights = np.bincount((chosen + offsets).ravel(), minlength=resamples * pictures)
    weights = weights.reshape(resamples, pictures).astype(np.float32)
    found, kept = (
        np.cumsum(weights @ table, axis=1, dtype=np.float64) for table in matches.tables(counting)
    )
    owner = np.repeat(np.arange(pictures), matches.truth.counts)
    faces = np.bincount(owner[counting], minlength=pictures).astype(np.float32)
    return area(found, kept, (weights @ faces).astype(np.float64))


def interval(resampled: Doubles, level: float = LEVEL) -> tuple[float, float]:
    """Return the middle ``level`` of the resamples; NaN if none has a face."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference(first: Doubles, second: Doubles, level: float = LEVEL) -> Difference:
    """Compare two models that were resampled with the same seed on the same pictures."""
    change = second - first
    low, high = interval(change, level)
    finite = change[np.isfinite(change)]
    doubt = 2 * min((finite <= 0).mean(), (finite >= 0).mean()) if len(finite) else np.nan
    return Difference(low, high, float(min(doubt, 1.0)))
