"""Boxes: overlap, conversion, suppression.

Boxes are ``(n, 4)`` corners ``x1 y1 x2 y2`` unless a name says otherwise.
"""

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats


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


def suppress(
    boxes: Floats, scores: Floats, *, overlap: float, cap: int | None = None, pixel: float = 0
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression.

    The best box stays, every box that overlaps it by more than ``overlap`` goes, and so on. Equal
    scores keep their order. With ``cap`` it stops as soon as that many boxes are kept, which are
    the same as the first ``cap`` without it.

    Returns:
        Indices of the boxes that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and (cap is None or len(kept) < cap):
        best, order = order[0], order[1:]
        kept.append(int(best))
        near = overlaps(boxes[best : best + 1], boxes[order], pixel=pixel)[0]
        order = order[near <= overlap]
    return np.asarray(kept, dtype=np.intp)
