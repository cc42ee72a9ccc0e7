"""Parity: do two predictors find the same faces on real pictures?

Raw tensors that agree on random numbers prove little: a forgotten channel order or a wrong resize
rule passes there and finds nothing on a photograph. So the whole path is compared, from 8-bit
pictures to boxes in the original picture.

The rule. A face counts when its own side scores it at least ``score``. It is matched when the other
side has, among the faces it scores at least ``score - MARGIN``, one whose box overlaps it by at
least the tolerance's ``iou``; each face is used once, best first. The margin keeps a face at
0.3001 against 0.2999 from passing for a loss, while its drift is still measured. Nothing else is
forgiven: if two boxes tie in the suppression and the other one survives, that is one missed and
one extra face, and the share the tolerance leaves open has to cover it.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces, Floats
from slimface.core.record import Fraction
from slimface.core.value import Value
from slimface.deploy.pipeline import Picture, Pipeline, Predictor, Settings
from slimface.errors import UsageError

log = logging.getLogger(__name__)

MARGIN = 0.1
"""How far below ``score`` the partner of a face may be scored."""

SHOWN = 5
"""So many of the pictures that differ are named in a report."""


class Tolerance(Value):
    """How far two predictors may differ."""

    iou: Fraction = 0.99
    """Boxes that overlap by less are not the same."""

    matched: Fraction = 0.995
    """Least share of faces that must be matched, counted from both sides."""

    score_drift: Fraction = 0.005
    """Largest difference in score between matched faces."""

    landmark_drift: Fraction = 0.02
    """Largest distance between matched landmarks, as a share of the face's width."""


TOLERANCES = {
    "float32": Tolerance(),
    "float16": Tolerance(iou=0.95, matched=0.99, score_drift=0.03, landmark_drift=0.05),
    "int8": Tolerance(iou=0.8, matched=0.9, score_drift=0.3, landmark_drift=0.3),
}
"""What numbers of each precision can be held to."""


class PictureParity(Value):
    """How one picture compares."""

    picture: str
    faces: int
    """Faces the reference scores at least ``score``."""

    missed: int
    extra: int
    score_drift: float

    def __str__(self) -> str:
        return (
            f"{self.picture}: {self.missed} of {self.faces} missed, {self.extra} extra, "
            f"scores up to {self.score_drift:.1e} apart"
        )


class ParityReport(Value):
    """How well a candidate reproduces the faces of a reference."""

    kind: Literal["parity"] = "parity"
    reference: str
    candidate: str
    score: Fraction
    tolerance: Tolerance
    pictures: int = Field(ge=0)
    faces: int = Field(ge=0)
    """Faces the reference scores at least ``score``, over all pictures."""

    matched: int = Field(ge=0)
    """Those of them that the candidate finds too."""

    missed: int = Field(ge=0)
    """Those of them that it does not."""

    extra: int = Field(ge=0)
    """Faces the candidate scores at least ``score`` and the reference does not have."""

    largest_score_drift: float = Field(ge=0)
    mean_score_drift: float = Field(ge=0)
    smallest_iou: float
    """Of the matched faces; 1 if there are none."""

    largest_landmark_drift: float | None = None
    """Of the matched faces, as a share of their width; None for detectors without landmarks."""

    worst: tuple[PictureParity, ...] = ()
    """The pictures that differ most, worst first."""

    @property
    def matched_share(self) -> float:
        """Matched faces as a share of all that either side counts."""
        total = self.matched + self.missed + self.extra
        return self.matched / total if total else 1.0

    @property
    def agrees(self) -> bool:
        """Whether the tolerance is kept. Without a single face nothing is proven."""
        return (
            self.faces > 0
            and self.matched_share >= self.tolerance.matched
            and self.largest_score_drift <= self.tolerance.score_drift
            and (self.largest_landmark_drift or 0) <= self.tolerance.landmark_drift
        )

    def explain(self) -> str:
        """Return the finding in sentences, with the pictures that differ most."""
        if not self.faces:
            return (
                f"{self.reference} finds no face of score {self.score:g} on "
                f"{self.pictures} pictures, so nothing can be said about {self.candidate}"
            )
        lines = [
            f"{self.candidate} finds {self.matched} of the {self.faces} faces of "
            f"{self.reference} on {self.pictures} pictures, {self.extra} extra "
            f"({self.matched_share:.2%} agree, {self.tolerance.matched:.2%} must); scores are up "
            f"to {self.largest_score_drift:.1e} apart ({self.tolerance.score_drift:.1e} allowed)"
        ]
        if self.largest_landmark_drift is not None:
            lines.append(
                f"  landmarks are up to {self.largest_landmark_drift:.1e} of the face's width "
                f"apart ({self.tolerance.landmark_drift:.1e} allowed)"
            )
        limit = self.tolerance.score_drift
        lines += [
            f"  {picture}"
            for picture in self.worst
            if picture.missed or picture.extra or picture.score_drift > limit
        ]
        return "\n".join(lines)


def parity(
    reference: Predictor,
    candidate: Predictor,
    pictures: Iterable[tuple[str, Picture]],
    *,
    score: float = 0.3,
    tolerance: Tolerance | None = None,
    settings: Settings | None = None,
    names: tuple[str, str] = ("the model", "the file"),
) -> ParityReport:
    """Compare the faces two predictors find, by the rule at the top of this module.

    Args:
        reference: The side that is right.
        candidate: The side that is checked.
        pictures: Names and pictures.
        score: Faces scored lower by their own side do not count.
        tolerance: How far they may differ; that of float32 if not given.
        settings: How to detect; its score floor is replaced by that of the rule.
        names: What to call the two sides in the report.

    Raises:
        UsageError: There is no picture.
    """
    floor = max(score - MARGIN, 0.0)
    detect = replace(settings or Settings(), score_floor=floor)
    tolerance = tolerance or Tolerance()
    found: list[PictureParity] = []
    drifts, ious, shifts = ([np.zeros(0, np.float32)] for _ in range(3))
    has_landmarks = False
    for name, picture in pictures:
        ours, theirs = reference.detect(picture, detect), candidate.detect(picture, detect)
        partner, iou = _partners(ours, theirs, tolerance.iou)
        counts = ours.scores >= score
        matched = partner >= 0
        extra = (theirs.scores >= score) & ~np.isin(np.arange(len(theirs)), partner[matched])
        both = matched & (counts | _at_least(theirs.scores, partner, score))
        drift = np.abs(ours.scores[both] - theirs.scores[partner[both]])
        drifts.append(drift)
        ious.append(iou[both])
        if ours.landmarks is not None and theirs.landmarks is not None:
            has_landmarks = True
            shifts.append(_landmark_drift(ours.select(both), theirs.select(partner[both])))
        found.append(
            PictureParity(
                picture=name,
                faces=int(counts.sum()),
                missed=int((counts & ~matched).sum()),
                extra=int(extra.sum()),
                score_drift=float(drift.max(initial=0)),
            )
        )
    if not found:
        raise UsageError(
            "There is no picture to compare on.\nGive a folder with pictures that show faces."
        )
    drift, iou = np.concatenate(drifts), np.concatenate(ious)
    faces, missed = sum(one.faces for one in found), sum(one.missed for one in found)
    found.sort(key=lambda one: (one.missed + one.extra, one.score_drift), reverse=True)
    return ParityReport(
        reference=names[0],
        candidate=names[1],
        score=score,
        tolerance=tolerance,
        pictures=len(found),
        faces=faces,
        matched=faces - missed,
        missed=missed,
        extra=sum(one.extra for one in found),
        largest_score_drift=float(drift.max(initial=0)),
        mean_score_drift=float(drift.mean()) if len(drift) else 0.0,
        smallest_iou=float(iou.min(initial=1)),
        largest_landmark_drift=(
            float(np.concatenate(shifts).max(initial=0)) if has_landmarks else None
        ),
        worst=tuple(found[:SHOWN]),
    )


def on_one_canvas(reference: Pipeline, candidate: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Feed two models alike where one of them takes inputs of one size only.

    Otherwise a large picture would be made smaller for one side, and what is compared would be the
    sizes of faces.

    Raises:
        UsageError: Each takes one size, and not the same.
    """
    if None not in (reference.canvas, candidate.canvas) and reference.canvas != candidate.canvas:
        raise UsageError(
            f"{reference.name} takes inputs of {_sides(reference.canvas)} only, {candidate.name} "
            f"of {_sides(candidate.canvas)}.\nExport both for the same --size."
        )
    canvas = reference.canvas or candidate.canvas
    reference.canvas = candidate.canvas = canvas
    return reference, candidate


def _sides(canvas: tuple[int, int] | None) -> str:
    return "any size" if canvas is None else f"{canvas[1]}x{canvas[0]}"


def _partners(ours: Faces, theirs: Faces, iou: float) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return for each of our faces the index of its partner, or -1, and their overlap."""
    partner = np.full(len(ours), -1, dtype=np.intp)
    shared = np.zeros(len(ours), dtype=np.float32)
    if not len(ours) or not len(theirs):
        return partner, shared
    ratio = overlaps(ours.boxes, theirs.boxes)
    for i in np.argsort(-ours.scores, kind="stable"):
        best = int(ratio[i].argmax())
        if ratio[i, best] >= iou:
            partner[i], shared[i] = best, ratio[i, best]
            ratio[:, best] = -1
    return partner, shared


def _at_least(scores: Floats, index: npt.NDArray[np.intp], score: float) -> npt.NDArray[np.bool_]:
    """Return where ``scores[index] >= score``; False where the index is -1."""
    reached: npt.NDArray[np.bool_] = np.append(scores, np.float32(-1))[index] >= score
    return reached


def _landmark_drift(ours: Faces, theirs: Faces) -> Floats:
    """Return for each face how far its farthest landmark is off, as a share of its width."""
    assert ours.landmarks is not None and theirs.landmarks is not None
    distances = np.linalg.norm(ours.landmarks - theirs.landmarks, axis=-1)
    widths = np.maximum(ours.boxes[:, 2] - ours.boxes[:, 0], np.finfo(np.float32).tiny)
    drift: Floats = distances.max(axis=1, initial=0) / widths
    return drift
