"""Detections as files for other programs: COCO results and plain JSON.

The layout of WIDER FACE's tools is in ``evaluate.predictions``, which reads it as well.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.faces import Faces, Floats
from slimface.files import beside

COCO_FACE = 1
"""``category_id`` of a face unless the annotations say otherwise."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The faces found on one picture."""

    name: str
    """Path below the folder of pictures, with slashes."""

    faces: Faces
    height: int
    width: int


def write_coco(
    path: Path,
    pictures: Iterable[Detected],
    *,
    image_ids: Mapping[str, int] | None = None,
    category_id: int = COCO_FACE,
) -> None:
    """Write COCO results: a list of boxes, each with its picture, category and score.

    Landmarks, where a detector has them, are COCO's key points: x, y and 2, or three zeros for a
    point that is not known, in the order of ``LANDMARK_NAMES``.

    Args:
        path: The file; replaced whole or not at all.
        pictures: What was found.
        image_ids: Name -> id in the annotations that the results belong to; None: 1, 2, 3 and so
            on. Each row carries the name as ``file_name`` too, which COCO's tools ignore.
        category_id: What the annotations call a face.

    Raises:
        KeyError: A picture has no id.
        OSError: The file cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        image_id = number if image_ids is None else image_ids[picture.name]
        faces = picture.faces
        for i, (box, score) in enumerate(zip(faces.boxes, faces.scores, strict=True)):
            x1, y1, x2, y2 = (float(side) for side in box)
            row = {
                "image_id": image_id,
                "file_name": picture.name,
                "category_id": category_id,
                "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 6),
            }
            if faces.landmarks is not None:
                row["keypoints"] = _keypoints(faces.landmarks[i])
            rows.append(row)
    write_text(path, json.dumps(rows, allow_nan=False))


def _keypoints(points: Floats) -> list[float]:
    values: list[float] = []
    for x, y in points.tolist():
        known = np.isfinite([x, y]).all()
        values += [round(x, 3), round(y, 3), 2] if known else [0, 0, 0]
    return values


def as_json(picture: Detected) -> dict[str, Any]:
    """Return a picture and its faces, ready for JSON: name, size, boxes as corners."""
    return {
        "name": picture.name,
        "height": picture.height,
        "width": picture.width,
        "faces": picture.faces.as_rows(),
    }


def write_json(path: Path, pictures: Iterable[Detected], **about: Any) -> None:
    """Write all pictures and their faces as one JSON object.

    Args:
        path: The file; replaced whole or not at all.
        pictures: What was found; stands under ``pictures``.
        about: Whatever else the reader should know, such as the model.

    Raises:
        OSError: The file cannot be written.
    """
    rows = [as_json(picture) for picture in pictures]
    write_text(path, json.dumps({**about, "pictures": rows}, allow_nan=False, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; folders are made.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
