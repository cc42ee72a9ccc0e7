"""Align: upright crops of faces, as recognition networks want them.

The five landmarks of a face are moved onto those of a template by the similarity transform
(rotation, one scale, shift) that leaves the least squared distance, and the picture is sampled
there.

Source: Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point
Patterns", IEEE TPAMI 13(4), 1991, equations 39 to 43; the template is that of Deng et al.,
"ArcFace", CVPR 2019, arXiv:1801.07698, as nearly every recognition network uses it.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces, Floats
from slimface.deploy.pixels import Picture, area
from slimface.errors import DataError, UsageError

TEMPLATE_PX = 112
TEMPLATE: npt.NDArray[np.float64] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where the landmarks go in a crop of 112 x 112 pixels, in the order of ``LANDMARK_NAMES``."""

SMALLEST_PX = 16
_SINGULAR = 1e-9


def similarity(points: npt.ArrayLike, onto: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the similarity transform that brings ``points`` nearest to ``onto``.

    Args:
        points: Shape ``(n, 2)`` as x, y; at least two that differ.
        onto: Where they should go, of the same shape.

    Returns:
        Shape ``(2, 3)``: rotation and scale, then the shift. It never mirrors.

    Raises:
        DataError: The points are one, or not numbers.
    """
    source, target = np.asarray(points, np.float64), np.asarray(onto, np.float64)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise DataError("A landmark is not a number.\nAlign only faces whose landmarks are known.")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    variance = (centred**2).sum() / len(source)
    if variance < _SINGULAR:
        raise DataError("All landmarks of a face are one point.\nLeave that face out.")
    covariance = (target - target_mean).T @ centred / len(source)
    left, values, right = np.linalg.svd(covariance)
    # Without it, points of a mirrored face would be fitted by a mirrored face.
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * sign) @ right
    scale = (values * sign).sum() / variance
    shift = target_mean - scale * rotation @ source_mean
    return np.concatenate([scale * rotation, shift[:, None]], axis=1)


def template(size_px: int) -> npt.NDArray[np.float64]:
    """Return where the landmarks go in a square crop: the template, scaled."""
    return TEMPLATE * (size_px / TEMPLATE_PX)


def align(picture: Picture, landmarks: Floats, size_px: int = TEMPLATE_PX) -> Picture:
    """Return the upright crop of one face, shape ``(size_px, size_px, 3)``.

    What lies outside the picture is black. A crop much smaller than its face is sampled from the
    picture at a fraction of its size, so that it does not shimmer.

    Args:
        picture: 8-bit RGB.
        landmarks: Shape ``(5, 2)`` as x, y in pixels of the picture.
        size_px: Side of the crop.

    Raises:
        DataError: A landmark is not known, or all are one point.
        UsageError: The side is too small to hold a face.
    """
    if size_px < SMALLEST_PX:
        raise UsageError(
            f"An aligned crop of {size_px} pixels holds no face.\n"
            f"Ask for {SMALLEST_PX} or more; {TEMPLATE_PX} is what recognition networks want."
        )
    matrix = similarity(landmarks, template(size_px))
    x1, y1, x2, y2 = _shown(matrix, size_px, picture)
    part = picture[y1:y2, x1:x2]
    if not part.size:
        return np.zeros((size_px, size_px, 3), dtype=np.uint8)
    matrix = matrix @ _affine((1.0, 1.0), (x1, y1))
    reduction = int(1 / np.hypot(*matrix[:, 0]))
    if reduction > 1:
        height, width = (max(1, side // reduction) for side in part.shape[:2])
        factor = part.shape[1] / width, part.shape[0] / height
        part = area(part, height, width)
        # Places count from the middle of the first pixel.
        matrix = matrix @ _affine(factor, ((factor[0] - 1) / 2, (factor[1] - 1) / 2))
    return _sampled(part, matrix, size_px)


def _sampled(picture: Picture, matrix: npt.NDArray[np.float64], size_px: int) -> Picture:
    """Return what ``matrix`` brings into a square, each pixel mixed from the four around it."""
    height, width = picture.shape[:2]
    back = np.linalg.inv(matrix[:, :2])
    places = np.stack(np.meshgrid(*[np.arange(size_px)] * 2), axis=-1)
    # All places outside are equally black, so the ring of black around the picture can be thin.
    x, y = np.moveaxis(((places - matrix[:, 2]) @ back.T).clip(-1, (width, height)), -1, 0)
    left, top = np.floor(x).clip(-1, width - 1), np.floor(y).clip(-1, height - 1)
    across, down = (part[..., None].astype(np.float32) for part in (x - left, y - top))
    ringed = np.pad(picture, ((1, 1), (1, 1), (0, 0))).astype(np.float32)
    rows, columns = top.astype(np.intp) + 1, left.astype(np.intp) + 1
    above, below = (
        ringed[row, columns] * (1 - across) + ringed[row, columns + 1] * across
        for row in (rows, rows + 1)
    )
    mixed: Picture = np.rint(above * (1 - down) + below * down).astype(np.uint8)
    return mixed


def _shown(matrix: npt.NDArray[np.float64], size_px: int, picture: Picture) -> list[int]:
    """Corners of the region of the picture that a crop shows, and a little more."""
    corners = np.array([[0, 0], [size_px, 0], [0, size_px], [size_px, size_px]], dtype=np.float64)
    seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    margin = 2 + np.hypot(*np.linalg.inv(matrix[:, :2])[:, 0])
    height, width = picture.shape[:2]
    low, high = seen.min(axis=0) - margin, seen.max(axis=0) + margin
    limits = np.array([width, height])
    return [int(v) for v in (*np.clip(low, 0, limits), *np.clip(np.ceil(high), 0, limits))]


def _affine(factor: tuple[float, float], shift: tuple[float, float]) -> npt.NDArray[np.float64]:
    return np.array([[factor[0], 0, shift[0]], [0, factor[1], shift[1]], [0, 0, 1]])


def aligned_crops(
    picture: Picture, faces: Faces, size_px: int = TEMPLATE_PX
) -> Iterator[tuple[int, Picture]]:
    """Yield the number and the crop of each face whose five landmarks are known, best first."""
    if faces.landmarks is None:
        return
    for number, points in enumerate(faces.landmarks):
        spread = np.ptp(points, axis=0)
        if np.isfinite(points).all() and spread.max() > 0:
            yield number, align(picture, points, size_px)
