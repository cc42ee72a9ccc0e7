"""Crops: many windows of one picture, each resized to what a small net looks at."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats
from slimface.deploy.pixels import Picture, linear, rectangle_sums

Windows = npt.NDArray[np.int64]
"""Shape ``(n, 4)``: left, top, right, bottom in pixels, the last two exclusive."""


class Windowed:
    """A picture from which windows are taken, in 0..255; outside of it all is black.

    ``area`` gives each pixel the mean of all pixels that its square touches, as torch's adaptive
    pooling does. It comes from sums over rectangles, so a large window costs what a small one does.
    """

    def __init__(self, picture: Picture, resize: Literal["area", "linear"]) -> None:
        self.height, self.width = picture.shape[:2]
        self._picture = picture
        # These sums overflow on large white pictures; their differences are right all the same,
        # since whole numbers wrap around and no window has a sum of more than 31 bits.
        self._sums = rectangle_sums(picture) if resize == "area" else None
        self._level: tuple[tuple[int, int], Picture] | None = None

    def rows(self, height: int, width: int, first: int, last: int) -> Floats:
        """Return rows ``first`` to ``last`` of the whole picture at another size.

        Returns:
            Shape ``(3, last - first, width)``.
        """
        if self._sums is None:
            level = self._resized(height, width)[first:last]
            return _planes(level)
        top, bottom = (edge[first:last] for edge in _edges(0, self.height, height))
        left, right = _edges(0, self.width, width)
        strips = self._sums[bottom] - self._sums[top]
        sums = np.take(strips, right, axis=1) - np.take(strips, left, axis=1)
        means = _planes(sums)
        means /= np.multiply.outer(bottom - top, right - left)
        return means

    def crops(self, windows: Windows, side: int) -> Floats:
        """Return each window at ``side`` by ``side`` pixels, shape ``(n, 3, side, side)``."""
        if self._sums is None:
            found = np.empty((len(windows), side, side, 3), dtype=np.uint8)
            for target, window in zip(found, windows.tolist(), strict=True):
                target[:] = linear(self._cut(*window), side, side)
            return _planes(found)
        left, right = _edges(windows[:, 0], windows[:, 2], side)
        top, bottom = _edges(windows[:, 1], windows[:, 3], side)
        area = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        sums = self._at(bottom, right)
        sums -= self._at(top, right)
        sums -= self._at(bottom, left)
        sums += self._at(top, left)
        means = _planes(sums)
        means /= area[:, None]
        return means

    def _at(self, y: Windows, x: Windows) -> npt.NDArray[np.int32]:
        """Sums above and left of points, shape ``(n, side, side, 3)``."""
        assert self._sums is not None
        # Beyond the border the sums stay what they are at it: black adds nothing.
        rows = np.clip(y, 0, self.height)[:, :, None] * (self.width + 1)
        places = rows + np.clip(x, 0, self.width)[:, None, :]
        sums: npt.NDArray[np.int32] = np.take(self._sums.reshape(-1, 3), places, axis=0)
        return sums

    def _cut(self, left: int, top: int, right: int, bottom: int) -> Picture:
        inner = self._picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if inner.shape[:2] == (bottom - top, right - left):
            return inner
        whole: Picture = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        whole[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return whole

    def _resized(self, height: int, width: int) -> Picture:
        if self._level is None or self._level[0] != (height, width):
            self._level = (height, width), linear(self._picture, height, width)
        return self._level[1]


def _planes(pixels: npt.NDArray[Any]) -> Floats:
    """Bring the colours of ``(..., height, width, 3)`` in front of the rows."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float32)


def _edges(start: int | Windows, stop: int | Windows, count: int) -> tuple[Windows, Windows]:
    """Where each of ``count`` pixels begins and ends: whole pixels of the source, overlapping."""
    length = np.asarray(stop - start, dtype=np.int64)[..., None]
    shift = np.asarray(start, dtype=np.int64)[..., None]
    i = np.arange(count, dtype=np.int64)
    return shift + i * length // count, shift + -(-(i + 1) * length // count)
