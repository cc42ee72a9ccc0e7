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
    order = np.arange(len(boxes)) if is_sorted else best_first(scores)
    limit = _at_most(overlap)
    kept: list[int] = []
    while len(order) and (cap is None or len(kept) < cap):
        best, order = order[0], order[1:]
        kept.append(int(best))
        near = overlaps(boxes[best : best + 1], boxes[order], pixel=pixel)[0]
        order = order[near <= limit]
    return np.asarray(kept, dtype=np.intp)


def _at_most(value: float) -> np.float32:
    """The largest float32 that is not above ``value``: comparing with it needs no doubles."""
    rounded = np.float32(value)
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))
