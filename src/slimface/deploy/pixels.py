"""Resize, split and sum pictures: by OpenCV where it is installed, else by NumPy, to the same bits.

OpenCV is several times faster and 150 MB large, so a small device may do without. Its rules are
those that published detectors were trained and measured with: what NumPy does here is not an
approximation of them, and tests hold the two against each other.

Source: OpenCV 5, modules/imgproc: resize with INTER_LINEAR (fixed point, weights in 2048ths) and
INTER_AREA.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""Height x width x 3, red green blue."""

cv2: ModuleType | None
try:
    import cv2
except ImportError:
    cv2 = None

_ONE = 2048
"""Weights of INTER_LINEAR are whole numbers of which so many make one."""

_STRIP = 32
"""So many rows are resized at once: what they need on the way stays in the processor's cache."""

_SLIVER = 1e-3
"""INTER_AREA leaves out what covers less of a pixel than this."""


def limit_threads(count: int) -> None:
    """Let resizing use so many threads; NumPy uses one in any case."""
    if cv2 is not None:
        cv2.setNumThreads(count)


def linear(picture: Picture, height: int, width: int) -> Picture:
    """Resize by mixing the two nearest rows and columns, without antialiasing: INTER_LINEAR."""
    if picture.shape[:2] == (height, width):
        return picture
    if cv2 is not None:
        sized: Picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        return sized
    return numpy_linear(picture, height, width)


def area(picture: Picture, height: int, width: int) -> Picture:
    """Give each pixel the mean of all that its square covers: INTER_AREA, for smaller pictures."""
    if picture.shape[:2] == (height, width):
        return picture
    if cv2 is not None:
        sized: Picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        return sized
    return numpy_area(picture, height, width)


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Resize as keeps most: by area where both sides shrink, else linearly.

    Single pixels would be picked out of a much larger picture otherwise.
    """
    shrinks = picture.shape[0] >= height and picture.shape[1] >= width
    return (area if shrinks else linear)(picture, height, width)


def split(picture: Picture, planes: Sequence[Picture]) -> None:
    """Write each colour of the picture into a plane of its own, shape ``(height, width)``."""
    if cv2 is not None:
        cv2.split(picture, planes)
        return
    for channel, plane in enumerate(planes):
        np.copyto(plane, picture[:, :, channel])


def rectangle_sums(picture: Picture) -> npt.NDArray[np.int32]:
    """Return the sums of all pixels above and left of each corner, which wrap around in 32 bits.

    Returns:
        Shape ``(height + 1, width + 1, 3)``.
    """
    if cv2 is not None:
        sums: npt.NDArray[np.int32] = cv2.integral(picture, sdepth=cv2.CV_32S)
        return sums
    return numpy_rectangle_sums(picture)


def numpy_linear(picture: Picture, height: int, width: int) -> Picture:
    """As ``linear``, whatever is installed."""
    before = picture.shape[:2]
    if before == (2 * height, 2 * width):
        # OpenCV takes means here, and rounds their halves up.
        quarters = [picture[y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
        means: Picture = ((sum(quarters[1:], quarters[0]) + 2) >> 2).astype(np.uint8)
        return means
    columns, across = _neighbours(before[1], width)
    # Beyond the border both neighbours are the pixel at it; rows keep their weights all the same.
    across[:, (columns[0] < 0) | (columns[1] >= before[1])] = [[_ONE], [0]]
    across = np.repeat(across, 3, axis=1)
    rows, down = _neighbours(before[0], height)
    rows = rows.clip(0, before[0] - 1)
    sized: Picture = np.empty((height, width, 3), dtype=np.uint8)
    for start in range(0, height, _STRIP):
        strip = slice(start, start + _STRIP)
        used, at = np.unique(rows[:, strip], return_inverse=True)
        at = at.reshape(2, -1)  # flat before NumPy 2
        part = picture[used]
        lines = _columns(part, columns[0]) * across[0]
        lines += _columns(part, columns[1]) * across[1]
        lines >>= 4
        mixed = (lines[at[0]] * down[0, strip, None]) >> 16
        mixed += (lines[at[1]] * down[1, strip, None]) >> 16
        mixed += 2
        mixed >>= 2
        sized[strip] = mixed.reshape(-1, width, 3)
    return sized


def _neighbours(before: int, after: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The two pixels that each new one is mixed from, and their weights, both ``(2, after)``.

    At the border one of the two may lie outside.
    """
    place = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    part = place - first.astype(np.float32)
    weights = np.rint(np.stack([1 - part, part]) * np.float32(_ONE))
    return np.stack([first, first + 1]), weights.astype(np.int32)


def _columns(picture: Picture, places: npt.NDArray[Any]) -> Picture:
    """Return these columns, or the last one, with colours side by side: ``(height, 3 * n)``."""
    found = np.take(picture, places, axis=1, mode="clip")
    return found.reshape(len(found), -1)


def numpy_area(picture: Picture, height: int, width: int) -> Picture:
    """As ``area``, whatever is installed; neither side may grow."""
    tall, wide = picture.shape[:2]
    if tall % height == 0 and wide % width == 0:
        return _whole_blocks(picture, tall // height, wide // width)
    lines = np.zeros((tall, 3 * width), dtype=np.float32)
    for places, shares in _covered(wide, width):
        lines += _columns(picture, places) * np.repeat(shares, 3)
    mixed = np.zeros((height, 3 * width), dtype=np.float32)
    for places, shares in _covered(tall, height):
        mixed += np.take(lines, places, axis=0) * shares[:, None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8).reshape(height, width, 3)


def _whole_blocks(picture: Picture, tall: int, wide: int) -> Picture:
    """The mean of each block of whole pixels."""
    height, width = picture.shape[0] // tall, picture.shape[1] // wide
    blocks = picture.reshape(height, tall, width, wide, 3)
    sums: npt.NDArray[np.int32] = blocks.sum(axis=(1, 3), dtype=np.int32)
    if (tall, wide) == (2, 2):
        means: Picture = ((sums + 2) >> 2).astype(np.uint8)
    else:
        means = np.rint(sums.astype(np.float32) * np.float32(1 / (tall * wide))).astype(np.uint8)
    return means


def _covered(before: int, after: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Which pixels each new one covers, and how much of it each of them makes up.

    Returns:
        As many pairs as the largest number of pixels that are covered, in their order: their
        places, and their shares, each of ``after`` values. Shares past the last pixel are 0.
    """
    scale = before / after
    covered = []
    for start in np.arange(after) * scale:
        end, whole = start + scale, min(scale, before - start)
        last = min(int(np.floor(end)), before - 1)
        first = min(int(np.ceil(start)), last)
        shares = [(place, 1 / whole) for place in range(first, last)]
        if first - start > _SLIVER:
            shares.insert(0, (first - 1, (first - start) / whole))
        if end - last > _SLIVER:
            shares.append((last, min(end - last, 1, whole) / whole))
        covered.append(shares)
    most = max(map(len, covered))
    padded = np.array([shares + [(0, 0.0)] * (most - len(shares)) for shares in covered])
    return [
        (padded[:, i, 0].astype(np.intp), padded[:, i, 1].astype(np.float32)) for i in range(most)
    ]


def numpy_rectangle_sums(picture: Picture) -> npt.NDArray[np.int32]:
    """As ``rectangle_sums``, whatever is installed."""
    height, width = picture.shape[:2]
    sums = np.zeros((height + 1, width + 1, 3), dtype=np.int32)
    np.cumsum(picture, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, dtype=np.int32, out=sums[1:, 1:])
    return sums
