"""How far found landmarks are from annotated ones: the normalised mean error.

The error of a face is the mean distance of its five points, in fractions of the distance between
its annotated eyes. It is taken over faces that were found, so it stands beside the average
precision, never alone: a detector that finds only easy faces has a small error.

Source: the inter-ocular normalisation of Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV
Workshops 2013, section 4, with eye centres as the annotations have them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.core.record import LandmarkError
from slimface.errors import DataError, UsageError

MATCH_OVERLAP = 0.5
FAILURE = 0.1
"""Faces with a larger error count as failures."""

_LEFT_EYE, _RIGHT_EYE = 0, 1

Doubles = npt.NDArray[np.float64]


def landmark_error(detections: Sequence[Faces], truth: Sequence[Faces]) -> LandmarkError:
    """Measure the landmarks found on pictures.

    Each detection, best first, takes the annotated face it overlaps most among those that are
    free, if by ``MATCH_OVERLAP``. Faces without five annotated points are matched, so that nobody
    else takes their detection, and not measured.

    Args:
        detections: The faces found on each picture, best first.
        truth: The faces annotated on each.

    Raises:
        DataError: No annotated face has landmarks.
        UsageError: Faces were found without landmarks.
    """
    annotated = sum(int(_measurable(faces).sum()) for faces in truth)
    if not annotated:
        raise DataError(
            "No face of these pictures has annotated landmarks.\n"
            "Use pictures with five landmarks a face (drawn ones, or a label.txt), or leave "
            "--landmarks out."
        )
    pairs = zip(detections, truth, strict=True)
    errors = np.concatenate([np.zeros(0), *(face_errors(found, known) for found, known in pairs)])
    return LandmarkError(
        mean=float(errors.mean()) if len(errors) else None,
        median=float(np.median(errors)) if len(errors) else None,
        failures=float((errors > FAILURE).mean()) if len(errors) else None,
        failure_above=FAILURE,
        faces=len(errors),
        annotated=annotated,
        match_overlap=MATCH_OVERLAP,
    )


def face_errors(found: Faces, known: Faces) -> Doubles:
    """Return the error of each annotated face of one picture that was found, shape ``(n,)``."""
    measurable = _measurable(known)
    if not len(found) or not measurable.any():
        return np.zeros(0)
    if found.landmarks is None or known.landmarks is None:
        raise UsageError(
            "Faces were found without landmarks, so there is nothing to measure.\n"
            "Choose a detector with landmarks and an input rule that keeps them, or leave "
            "--landmarks out."
        )
    errors = []
    for detection, face in match_faces(found, known):
        if measurable[face]:
            points = known.landmarks[face].astype(np.float64)
            away = np.hypot(*(found.landmarks[detection] - points).T)
            errors.append(away.mean() / _eye_distance(points))
    return np.array(errors, dtype=np.float64)


def match_faces(
    found: Faces, known: Faces, overlap: float = MATCH_OVERLAP
) -> list[tuple[int, int]]:
    """Return pairs of a detection and the annotated face it stands for, one to one."""
    table = overlaps(found.boxes, known.boxes)
    pairs = []
    for detection in range(len(found) if len(known) else 0):
        face = int(table[detection].argmax())
        if table[detection, face] >= overlap:
            pairs.append((detection, face))
            table[:, face] = -1
    return pairs


def _measurable(faces: Faces) -> npt.NDArray[np.bool_]:
    """Faces whose five points are known, and whose eyes are apart."""
    if faces.landmarks is None:
        return np.zeros(len(faces), dtype=bool)
    known = np.isfinite(faces.landmarks).all(axis=(1, 2))
    return known & (_eye_distance(np.nan_to_num(faces.landmarks)) > 0)


def _eye_distance(points: Doubles | npt.NDArray[np.float32]) -> Doubles:
    apart: Doubles = np.linalg.norm(
        points[..., _RIGHT_EYE, :] - points[..., _LEFT_EYE, :], axis=-1
    ).astype(np.float64)
    return apart
