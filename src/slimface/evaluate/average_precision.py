"""Average precision by the official WIDER FACE protocol, in plain NumPy.

Detections meet faces once (``match``); each subset then reads its curve from that. Where the
official tools walk through pictures, detections and thresholds, one count over all detections does:
a detection enters at a threshold, and from there on it is kept and perhaps finds a face.

Source: Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016, arXiv:1511.06523, and the
evaluation tools published with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces
from slimface.evaluate.truth import Mask, Truth

EVALUATOR = "widerface-1"
"""Changes whenever the same detections could get another figure."""

THRESHOLDS = 1000
HEIGHTS_PX = (0.0, 16.0, 32.0, 64.0, 128.0, 256.0, np.inf)

Integers = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Counts at falling score thresholds."""

    found: Doubles
    """Shape ``(thresholds,)``: faces found so far."""

    kept: Doubles
    """Shape ``(thresholds,)``: detections so far that are not set aside."""

    faces: int
    """Faces that count."""

    @property
    def recall(self) -> Doubles:
        """Share of the faces that are found; NaN without faces."""
        return self.found / (self.faces or np.nan)

    @property
    def precision(self) -> Doubles:
        """Share of the kept detections that found a face; 0 before there are any."""
        return self.found / np.maximum(self.kept, 1)

    @property
    def average_precision(self) -> float:
        """Area under the curve; NaN without faces."""
        return float(area(self.found, self.kept, np.asarray(self.faces, dtype=np.float64)))


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What every detection of a data set met, picture by picture, in their stored order."""

    truth: Truth
    picture: Integers
    """Shape ``(d,)``, like all that follow: index of the picture."""

    step: Integers
    """Index of the first threshold that lets the detection in."""

    face: Integers
    """Index of the face it overlaps most, -1 where that overlap is too small."""

    first: Mask
    """Whether it is the first of its picture on that face."""

    height: Doubles
    """In pixels."""

    steps: int
    """Number of thresholds."""

    def curve(self, counting: Mask, heights_px: tuple[float, float] = (0, np.inf)) -> Curve:
        """Return the curve of the faces that count.

        Args:
            counting: Which faces count, shape ``(faces,)``; the others are set aside.
            heights_px: Detections that meet no face count as wrong only if their height is at
                least the first and below the second, so that a range of heights answers for its
                own mistakes.
        """
        found, kept = self._found_and_kept(counting, heights_px)
        return Curve(
            np.cumsum(np.bincount(self.step[found], minlength=self.steps), dtype=np.float64),
            np.cumsum(np.bincount(self.step[kept], minlength=self.steps), dtype=np.float64),
            int(counting.sum()),
        )

    def tables(self, counting: Mask) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return how many faces each picture finds, and detections it keeps, at each threshold.

        Returns:
            Two arrays of shape ``(pictures, thresholds)``, not cumulative; the sums over the
            pictures of their running sums are ``curve``.
        """
        shape = (len(self.truth), self.steps)
        cell = self.picture * self.steps + self.step
        found, kept = (
            np.bincount(cell[mask], minlength=shape[0] * shape[1]).astype(np.float32).reshape(shape)
            for mask in self._found_and_kept(counting, (0, np.inf))
        )
        return found, kept

    def _found_and_kept(self, counting: Mask, heights_px: tuple[float, float]) -> tuple[Mask, Mask]:
        met = self.face >= 0
        counts = np.zeros(len(met), dtype=bool)
        counts[met] = counting[self.face[met]]
        fits = (self.height >= heights_px[0]) & (self.height < heights_px[1])
        return counts & self.first, np.where(met, counts, fits)


def area(found: Doubles, kept: Doubles, faces: Doubles) -> Doubles:
    """Return the area under the monotone envelope of precision over recall.

    Args:
        found: Shape ``(..., thresholds)``, rising.
        kept: The same shape.
        faces: Shape ``(...)``.

    Returns:
        Shape ``(...)``; NaN where there are no faces.
    """
    precision = found / np.maximum(kept, 1)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    gains = np.diff(found, axis=-1, prepend=0)
    total: Doubles = (gains * envelope).sum(axis=-1) / np.where(faces > 0, faces, np.nan)
    return total


def match(
    detections: Sequence[Faces],
    truth: Truth,
    *,
    overlap: float = 0.5,
    thresholds: int | None = THRESHOLDS,
) -> Matches:
    """Let the detections of a data set meet its faces.

    A detection meets the face it overlaps most if that is at least ``overlap`` (corners
    inclusive). Scores are stretched over the whole data set so that they run from 0 to 1, and a
    picture's detections enter at a threshold up to the last one that reaches it.

    Args:
        detections: For each picture of ``truth``, in its order.
        truth: Shape and order of the faces.
        overlap: Intersection over union from which a face is found.
        thresholds: Number of equidistant thresholds; None for one at each score, which is no
            longer the official protocol but does not depend on how scores are spread.
    """
    per_picture = np.asarray([len(faces) for faces in detections], dtype=np.intp)
    assert len(per_picture) == len(truth)
    boxes = np.concatenate([np.zeros((0, 4)), *(faces.boxes for faces in detections)])
    scores = np.concatenate([np.zeros(0), *(faces.scores for faces in detections)])
    picture = np.repeat(np.arange(len(truth)), per_picture)
    step, steps = _steps(scores, thresholds)
    step = _until_the_last(step, picture, steps)
    face = _best_faces(boxes, per_picture, truth, overlap)
    first = np.zeros(len(face), dtype=bool)
    values, places = np.unique(face, return_index=True)
    first[places[values >= 0]] = True
    if not truth.empty_pictures_count:
        judged = np.repeat(truth.counts > 0, per_picture)
        boxes, picture, step, face, first = (
            part[judged] for part in (boxes, picture, step, face, first)
        )
    heights = np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    return Matches(truth, picture, step, face, first, heights, steps)


def _steps(scores: Doubles, thresholds: int | None) -> tuple[Integers, int]:
    """Index of the first threshold that each score reaches, and the number of thresholds."""
    if not len(scores):
        return np.zeros(0, dtype=np.intp), thresholds or 1
    if thresholds is None:
        values, rank = np.unique(-scores, return_inverse=True)
        return rank.reshape(-1).astype(np.intp), len(values)
    low, high = scores.min(), scores.max()
    stretched = (scores - low) / ((high - low) or 1)
    falling = 1 - np.arange(1, thresholds + 1) / thresholds
    reached = np.searchsorted(falling[::-1], stretched, side="right")
    return (thresholds - reached).astype(np.intp), thresholds


def _until_the_last(step: Integers, picture: Integers, steps: int) -> Integers:
    """Let a detection in with any later one of its picture; changes unsorted pictures only."""
    # Later pictures have greater keys, so the running minimum from the end starts anew at each.
    keys = (picture * steps + step)[::-1]
    return np.minimum.accumulate(keys)[::-1] - picture * steps


def _best_faces(boxes: Doubles, per_picture: Integers, truth: Truth, overlap: float) -> Integers:
    """Index of the face that each box overlaps most, -1 if that is less than ``overlap``."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2] + 1, 0)
    truth_sides = truth.boxes[:, 2:] - truth.boxes[:, :2] + 1
    areas, truth_areas = sides.prod(axis=1), truth_sides.prod(axis=1)
    columns, truth_columns = np.ascontiguousarray(boxes.T), np.ascontiguousarray(truth.boxes.T)
    ends, truth_ends = np.cumsum(per_picture), np.cumsum(truth.counts)
    box_parts, face_parts, ratio_parts = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], [areas[:0]]
    for i in np.flatnonzero((per_picture > 0) & (truth.counts > 0)):
        start, truth_start = ends[i] - per_picture[i], truth_ends[i] - truth.counts[i]
        # Boxes lie along the last axis: there are more of them, and long rows are fast.
        x1, y1, x2, y2 = columns[:, start : ends[i]]
        u1, v1, u2, v2 = truth_columns[:, truth_start : truth_ends[i], None]
        across = np.minimum(x2, u2) - np.maximum(x1, u1) + 1
        down = np.minimum(y2, v2) - np.maximum(y1, v1) + 1
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        union = areas[start : ends[i]] + truth_areas[truth_start : truth_ends[i], None] - shared
        row, column = np.nonzero(shared >= overlap * union)
        face_parts.append(row + truth_start)
        box_parts.append(column + start)
        ratio_parts.append(shared[row, column] / union[row, column])
    box, met, ratio = (np.concatenate(p) for p in (box_parts, face_parts, ratio_parts))
    order = np.lexsort((met, -ratio, box))
    box, met = box[order], met[order]
    best = np.full(len(boxes), -1, dtype=np.intp)
    leads = np.diff(box, prepend=-1) > 0
    best[box[leads]] = met[leads]
    return best
