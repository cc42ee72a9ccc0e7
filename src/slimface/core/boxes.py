"""Boxes: overlap, conversion, suppression.

Boxes are ``(n, 4)`` corners ``x1 y1 x2 y2`` unless a name says otherwise.
"""

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats

Indices = npt.NDArray[np.intp]


def areas(boxes: Floats, *, pixel: float = 0) -> Floats:
    """Return the area of each box; ``pixel=1`` counts the last pixel as WIDER FACE's tools do."""
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2] + pixel, 0)
    product: Floats = sides[:, 0] * sides[:, 1]
    return product


def overlaps(first: Floats, second: Floats, *, pixel: float = 0) -> Floats:
    """Return the intersection over union of every pair, shape ``(len(first), len(second))``.

    With ``pixel=1`` corners are inclusive, as in WIDER FACE's evaluation. Boxes without an area
    overlap nothing.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low + pixel, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(first, pixel=pixel)[:, None] + areas(second, pixel=pixel)[None, :] - shared
    ratio: Floats = shared / np.maximum(union, np.finfo(np.float32).tiny)
    return ratio


def best_first(scores: Floats, *, limit: int | None = None) -> Indices:
    """Return the indices that sort ``scores`` from high to low; equal scores keep their order.

    With ``limit`` only that many of the best are returned, without sorting the others.
    """
    # One unsigned integer a score, falling as the score rises, its index below: sorting plain
    # integers is several times faster than a stable argsort, and equal scores stay in order.
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    keys = (falling.astype(np.uint64) << np.uint64(32)) | np.arange(len(scores), dtype=np.uint64)
    if limit is not None and limit < len(keys):
        keys = np.partition(keys, limit)[:limit]
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


def suppress(
    boxes: Floats,
    scores: Floats,
    *,
    overlap: float,
    cap: int | None = None,
    pixel: float = 0,
    is_sorted: bool = False,
) -> Indices:
    """Greedy non-maximum suppression.

    The best box stays, every box that overlaps it by more than ``overlap`` goes, and so on. Equal
    scores keep their order. With ``cap`` it stops as soon as that many boxes are kept, which are
    the same as the first ``cap`` without it.

    Args:
        boxes: Shape ``(n, 4)``.
        scores: Shape ``(n,)``; logits serve as well.
        overlap: Intersection over union that two faces may have.
        cap: How many boxes to keep at most.
        pixel: 1 where corners are inclusive.
        is_sorted: The boxes are sorted already, best first.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = None if is_sorted else best_first(scores)
    if order is not None:
        boxes = boxes[order]
    cap = len(boxes) if cap is None else min(cap, len(boxes))
    if cap < 1:
        return np.zeros(0, dtype=np.intp)
    kept = _Suppression(boxes, overlap, pixel).run(cap)
    return kept if order is None else order[kept]


class _Suppression:
    """Suppression of sorted boxes, block by block.

    Of all pairs only the near ones get their overlap computed. Two boxes that overlap by more than
    ``t`` share more than ``t`` times the width, and the height, of either one, so their centres
    are at most ``(1 - t) / 2`` times the sum of their widths, and heights, apart. Squared and
    summed over both axes, that is a bilinear form of six features of each box: one matrix product
    rejects nearly all pairs. What it lets through is decided exactly, in float32, as torchvision
    does.
    """

    BLOCK = 256

    MARGIN = np.float32(5e-5)
    """Features are at most 2, so rounding of their products is far below this: no near pair is
    missed."""

    def __init__(self, boxes: Floats, overlap: float, pixel: float) -> None:
        self._corners = np.ascontiguousarray(boxes.T, dtype=np.float32)
        self._areas = areas(boxes, pixel=pixel)
        self._limit = at_most(overlap)
        self._pixel = np.float32(pixel)
        low, high = self._corners[:2], self._corners[2:]
        sides = np.maximum(high - low + self._pixel, 0)
        centres = 0.5 * (low + high)
        centres -= 0.5 * (centres.max(axis=1) + centres.min(axis=1))[:, None]
        largest = max(float(np.abs(centres).max()), float(sides.max()), 1e-30)
        x, y, width, height = np.concatenate([centres, sides]) / np.float32(largest)
        reach = np.float32((1 - overlap) ** 2 / 4)
        norm = x * x + y * y - reach * (width * width + height * height)
        one = np.ones_like(norm)
        # left @ right: squared distance of the centres, minus how far apart they may be.
        self._left = np.stack(
            [norm, one, -2 * x, -2 * y, -2 * reach * width, -2 * reach * height], axis=1
        )
        self._right = np.stack([one, norm, x, y, width, height])

    def run(self, cap: int) -> Indices:
        """Return the indices of at most ``cap`` boxes that stay."""
        kept = np.empty(cap, dtype=np.intp)
        count = 0
        for start in range(0, len(self._left), self.BLOCK):
            block = np.arange(start, min(start + self.BLOCK, len(self._left)))
            if count:
                _, hit = self._overlapping(kept[:count], block)
                alive = np.ones(len(block), dtype=bool)
                alive[hit] = False
                block = block[alive]
            new = block[self._survivors(block)][: cap - count]
            kept[count : count + len(new)] = new
            count += len(new)
            if count == cap:
                break
        return kept[:count]

    def _survivors(self, block: Indices) -> npt.NDArray[np.bool_]:
        """Which boxes of a block stay, if only the block existed."""
        first, second = self._overlapping(block, block)
        ordered = first < second
        gone = bytearray(len(block))
        # Pairs come sorted by their first box, so whether that one stays is settled by then.
        for better, worse in zip(first[ordered].tolist(), second[ordered].tolist(), strict=True):
            if not gone[better]:
                gone[worse] = 1
        stays: npt.NDArray[np.bool_] = np.frombuffer(gone, dtype=np.uint8) == 0
        return stays

    def _overlapping(self, first: Indices, second: Indices) -> tuple[Indices, Indices]:
        """Positions in ``first`` and ``second`` of all pairs that overlap too much."""
        near = np.flatnonzero(self._left[first] @ self._right[:, second] < self.MARGIN)
        i = near // len(second)
        j = near - i * len(second)
        x1, y1, x2, y2 = self._corners
        a, b = first[i], second[j]
        wide = np.minimum(x2[a], x2[b]) - np.maximum(x1[a], x1[b]) + self._pixel
        high = np.minimum(y2[a], y2[b]) - np.maximum(y1[a], y1[b]) + self._pixel
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        union = self._areas[a] + self._areas[b] - shared
        too_much = shared / np.maximum(union, np.finfo(np.float32).tiny) > self._limit
        return i[too_much], j[too_much]


def at_most(value: float) -> np.float32:
    """The largest float32 that is not above ``value``: comparing with it needs no doubles."""
    rounded = np.float32(value)
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))
