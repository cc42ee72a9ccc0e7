"""Several sizes and a mirrored pass, merged by box voting: the published test procedure.

Source: Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017,
arXiv:1708.05237, and the tests published with EResFD (arXiv:2204.01209), which others reuse. The
voting is that of Gidaris and Komodakis, "Object detection via a multi-region and semantic
segmentation-aware CNN model", ICCV 2015, arXiv:1505.01749.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces, Floats
from slimface.core.record import Multiscale
from slimface.deploy.pipeline import Picture, Predictor, Settings
from slimface.evaluate.average_precision import Integers

LARGE_PX = 30
"""A shrunk pass answers for boxes with a longer side above this."""

SMALL_PX = 100
"""An enlarged pass answers for boxes with a shorter side below this."""

_BLOCK = 128


def detect_multiscale(
    predictor: Predictor, picture: Picture, settings: Settings, rule: Multiscale
) -> Faces:
    """Detect at several sizes and let the boxes vote.

    Args:
        predictor: What detects in each pass.
        picture: The picture at its own size.
        settings: Floor, suppression and cap of each pass; the cap also holds for the result. Its
            sizes are not used.
        rule: Limit of the passes and rule of the vote.
    """
    height, width = picture.shape[:2]
    limit = (rule.max_pixels / (height * width)) ** 0.5
    scale = min(1.0, limit)
    passes = [predictor.detect(picture, replace(settings, scale=scale, longest_px=None))]
    mirror = np.ascontiguousarray(picture[:, ::-1])
    mirrored = predictor.detect(mirror, replace(settings, scale=scale, longest_px=None))
    passes.append(mirrored.mirrored(width))
    for scale, wants_large in other_scales(limit):
        faces = predictor.detect(picture, replace(settings, scale=scale, longest_px=None))
        sides = faces.boxes[:, 2:] - faces.boxes[:, :2] + 1
        fits = sides.max(axis=1) > LARGE_PX if wants_large else sides.min(axis=1) < SMALL_PX
        passes.append(faces.select(fits))
    return vote(
        np.concatenate([faces.boxes for faces in passes]),
        np.concatenate([faces.scores for faces in passes]),
        overlap=rule.vote_overlap,
        keep_lone=rule.keep_lone,
        cap=settings.cap,
    )


def other_scales(limit: float) -> Iterator[tuple[float, bool]]:
    """Yield the scale of each pass after the first two, and whether only its large boxes stay.

    Args:
        limit: The largest scale that any pass may have.
    """
    shrunk = 0.5 if limit >= 0.75 else 0.5 * limit
    yield shrunk, True
    if limit <= 1:
        yield (shrunk + limit) / 2, True
        return
    enlarged = min(2.0, limit)
    yield enlarged, False
    if limit > 2:
        while (enlarged := 2 * enlarged) < limit:
            yield enlarged, False
        yield limit, False


def vote(
    boxes: Floats, scores: Floats, *, overlap: float, keep_lone: bool, cap: int | None = None
) -> Faces:
    """Merge boxes that mean the same face.

    The best box and all that overlap it by at least ``overlap`` (corners inclusive) become one, and
    so on with what is left: its corners are their mean weighted by score, its score is the best.

    Args:
        boxes: Shape ``(n, 4)``, in any order.
        scores: Shape ``(n,)``.
        overlap: Intersection over union from which boxes vote together.
        keep_lone: Keep a box that no other one joins.
        cap: At most this many results, best first.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, weights = boxes[order].astype(np.float64), scores[order].astype(np.float64)
    leader = _leaders(boxes[order], overlap)
    members = np.bincount(leader, minlength=len(order))
    sums = np.stack(
        [np.bincount(leader, weights * side, minlength=len(order)) for side in ranked.T], axis=1
    )
    totals = np.bincount(leader, weights, minlength=len(order))
    # A group of scores that are all zero has no weighted mean: its best box stands for it.
    means = np.where(totals[:, None] > 0, sums / np.where(totals > 0, totals, 1)[:, None], ranked)
    best = np.flatnonzero(members > (0 if keep_lone else 1))[:cap]
    return Faces(means[best].astype(np.float32), scores[order][best])


def _leaders(boxes: Floats, overlap: float) -> Integers:
    """For each box, best first, the index of the one it votes with: its own if it leads.

    A box follows the first leader it overlaps enough. Blocks of candidates are compared with all
    boxes at once; within a block the loop is over leaders only.
    """
    leader = np.full(len(boxes), -1, dtype=np.intp)
    while len(open_ := np.flatnonzero(leader < 0)):
        block = open_[:_BLOCK]
        joins = overlaps(boxes[block], boxes[open_], pixel=1) >= overlap
        # A box without extent overlaps nothing, not even itself.
        joins[np.arange(len(block)), np.arange(len(block))] = True
        leads = np.zeros(len(block), dtype=bool)
        taken = np.zeros(len(block), dtype=bool)
        for i in range(len(block)):
            if not taken[i]:
                leads[i] = True
                taken |= joins[i, : len(block)]
        followed = joins[leads]
        first = followed.argmax(axis=0)
        follows = followed.any(axis=0)
        leader[open_[follows]] = block[leads][first[follows]]
    return leader
