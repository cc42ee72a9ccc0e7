"""Ranges: from which number to which eight bits reach. What lies beyond is cut off.

A wide range rounds everything coarsely, a narrow one cuts outliers off; the methods differ in how
they weigh the two.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from slimface.compress.quantize.calibrate import Seen
from slimface.core.faces import Floats

Range = tuple[float, float]
"""The least and the largest number that are told apart."""

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "entropy")

PERCENTILE = 99.99
"""So many percent of the values lie within the range that ``percentile`` chooses."""

LEVELS = 256
STEPS = {8: (-127, 127), 7: (-64, 64), 4: (-8, 7)}
"""Bits of weights -> whole numbers that ONNX Runtime lets them reach from and to."""


def width_of_steps(bits: int) -> float:
    """Return how wide a step is for weights whose largest magnitude is one.

    That one lies between two steps where the ends differ; a hair less, and it is always rounded
    away from zero.
    """
    low, high = STEPS[bits]
    return 2 / (high - low) * (1 if low == -high else 1 - 1e-6)


_BINS = 1024
_CANDIDATES = 40


def range_of(seen: Seen, method: Method) -> Range:
    """Return the least and the largest number that are told apart; zero lies between them."""
    low, high = _METHODS[method](seen)
    return min(low, 0.0), max(high, 0.0)


def _minmax(seen: Seen) -> Range:
    return seen.lowest, seen.highest


def _percentile(seen: Seen) -> Range:
    tail = (100 - PERCENTILE) / 2
    low, high = np.percentile(seen.values, (tail, 100 - tail))
    return float(low), float(high)


def _mse(seen: Seen) -> Range:
    """The range whose rounding and cutting cost the least squared error."""
    values = seen.values

    def error(share: float) -> float:
        return float(np.square(rounded(values, *_shares(seen, share)) - values).mean())

    return _shares(seen, min(np.linspace(1, 0.2, _CANDIDATES), key=error))


def _entropy(seen: Seen) -> Range:
    """The range in which 256 levels lose the least of what the histogram tells.

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    values = seen.values

    def divergence(share: float) -> float:
        low, high = _shares(seen, share)
        if high <= low:
            return np.inf
        inner, _ = np.histogram(values, bins=_BINS, range=(low, high))
        levels = inner.reshape(LEVELS, -1)
        filled = levels > 0
        even = levels.sum(axis=1) / np.maximum(filled.sum(axis=1), 1)
        coarse = np.where(filled, even[:, None], 0).ravel()
        # What is cut off falls on the outermost values, which the coarse one does not tell of.
        real = inner.astype(np.float64)
        real[0] += (values < low).sum()
        real[-1] += (values > high).sum()
        p, q = real / real.sum(), coarse / max(coarse.sum(), 1)
        told = p > 0
        return float((p[told] * np.log(p[told] / np.maximum(q[told], 1e-9))).sum())

    return _shares(seen, min(np.linspace(1, 0.2, _CANDIDATES), key=divergence))


def _shares(seen: Seen, share: float) -> Range:
    return float(seen.lowest * share), float(seen.highest * share)


def rounded(values: Floats, low: float, high: float) -> Floats:
    """Return values as eight bits from ``low`` to ``high`` hold them; zero stays exactly zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (LEVELS - 1)
    if scale == 0:
        return np.zeros_like(values)
    zero = round(-low / scale)
    steps = np.clip(np.rint(values / scale) + zero, 0, LEVELS - 1)
    back: Floats = ((steps - zero) * scale).astype(np.float32)
    return back


_METHODS: Mapping[Method, Callable[[Seen], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
