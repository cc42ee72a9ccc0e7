"""Annotations with five landmarks a face: the ``label.txt`` of RetinaFace.

A picture is a line ``# path``; each line below it is a face:

    x y width height  x y flag  x y flag  x y flag  x y flag  x y flag  quality

in the order of ``LANDMARK_NAMES``. A flag of 0 is a visible point, 1 a hidden one whose place was
guessed; of a face too small to say, all points and flags are -1. Pictures are in ``images/``
beside the file. Lines without landmarks (4 numbers) and without quality (19) are read too.

Source: Deng et al., "RetinaFace", CVPR 2020, arXiv:1905.00641, section 4.1; annotations v1.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from slimface.core.faces import LANDMARK_NAMES, Faces
from slimface.data.annotations import PICTURE_SUFFIXES, is_inside, short, text_of
from slimface.data.pictures import Annotated, PictureSet, gathered
from slimface.errors import DataError, MissingError
from slimface.files import write_text

LABELS = "label.txt"
_POINTS = len(LANDMARK_NAMES)
_COLUMNS = (4, 4 + 3 * _POINTS, 5 + 3 * _POINTS)
_ABSENT = -1.0
_FLAGS = (-1.0, 0.0, 1.0)


class Labelled(NamedTuple):
    """What ``label.txt`` says about one picture."""

    name: str
    """Path below ``images/``."""

    boxes: npt.NDArray[np.float64]
    """Shape ``(n, 4)``: x, y, width, height."""

    landmarks: npt.NDArray[np.float64]
    """Shape ``(n, 5, 2)``; NaN where a point is not known."""

    line: int
    """Line of the name."""

    lines: tuple[int, ...]
    """Line of each face."""

    @property
    def face_count(self) -> int:
        """Faces listed, those without a size among them."""
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a ``label.txt``."""

    path: Path
    line: int

    def fail(self, what: str) -> NoReturn:
        """Raise the DataError that names this line and explains the format."""
        raise DataError(
            f"{self.path}:{self.line}: {what}\n"
            "A picture is a line '# path', and below it a line of 20 numbers for each face: "
            "x y w h, five times x y flag, quality.\nCorrect that line, or see `slimface doctor`."
        )


def parse_labels(path: Path) -> list[Labelled]:
    """Read a ``label.txt``.

    Raises:
        DataError: A line breaks the format; the message says which, and how.
        MissingError: The file cannot be read.
    """
    found: list[Labelled] = []
    seen: dict[str, int] = {}
    for header, name, rows in _pictures(path):
        place = Place(path, header)
        if name in seen:
            place.fail(f"{name} is listed a second time (first in line {seen[name]}).")
        seen[name] = header
        faces = [read_face(Place(path, line), text) for line, text in rows]
        boxes = np.array([box for box, _ in faces]).reshape(-1, 4)
        points = np.array([points for _, points in faces]).reshape(-1, _POINTS, 2)
        found.append(Labelled(name, boxes, points, header, tuple(line for line, _ in rows)))
    return found


def _pictures(path: Path) -> Iterator[tuple[int, str, list[tuple[int, str]]]]:
    """Yield the line of each picture, its name, and its faces' lines; blank lines say nothing."""
    header, name, rows = 0, "", list[tuple[int, str]]()
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        text = line.strip()
        if text.startswith("#"):
            if header:
                yield header, name, rows
            header, name, rows = number, check_name(Place(path, number), text), []
        elif text and not header:
            Place(path, number).fail(
                f"expected '# path' of the first picture, found {short(text)}."
            )
        elif text:
            rows.append((number, text))
    if header:
        yield header, name, rows


def check_name(place: Place, text: str) -> str:
    """Return the path that a line ``# path`` names."""
    name = text[1:].strip()
    if not name.lower().endswith(PICTURE_SUFFIXES):
        place.fail(f"expected the path of a picture (.jpg, .jpeg or .png), found {short(name)}.")
    if not is_inside(name):
        place.fail(f"the path {short(name)} leads out of the folder of pictures.")
    return name


def read_face(place: Place, text: str) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Return the box and the points of a face's line."""
    words = text.split()
    if len(words) not in _COLUMNS:
        place.fail(f"expected the 20 numbers of a face, found {len(words)}: {short(text)}.")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        place.fail(f"{short(text)} is not all numbers.")
    if not np.isfinite(numbers).all():
        place.fail(f"{short(text)} is not all finite numbers.")
    if len(numbers) == 4:
        return numbers, np.full((_POINTS, 2), np.nan)
    triples = np.array(numbers[4 : 4 + 3 * _POINTS]).reshape(_POINTS, 3)
    if not np.isin(triples[:, 2], _FLAGS).all():
        place.fail(f"a flag of {short(text)} is none of -1, 0 and 1.")
    # By both coordinates: a point may well lie a pixel left of the picture.
    absent = (triples[:, 2] == _ABSENT) | (triples[:, :2] == _ABSENT).all(axis=1)
    return numbers[:4], np.where(absent[:, None], np.nan, triples[:, :2])


def read_landmarks(root: Path, split: str, *, partial: bool = False) -> PictureSet:
    """Read one split of a folder in RetinaFace's layout: ``{split}/label.txt`` and ``images/``.

    Faces of no width or height are left out and counted in the log.

    Args:
        root: The folder with ``train`` and ``val``.
        split: ``train`` or ``val``.
        partial: Leave out, and count in the log, pictures that are not there.

    Raises:
        MissingError: There is no ``label.txt``.
        DataError: It breaks its format, or a picture is missing.
    """
    source = Path(root) / split / LABELS
    if not source.is_file():
        raise MissingError(
            f"{source}: no such file; it holds the faces and their landmarks.\n"
            "Name the folder with train/label.txt, train/images, val/label.txt and val/images "
            "(RetinaFace's annotations v1.1)."
        )
    return gathered(
        f"landmarks-{split}",
        parse_labels(source),
        _annotated,
        source=source,
        images=source.parent / "images",
        advice="Put it there; `slimface doctor` lists all, and leaves them out with --repair.",
        partial=partial,
    )


def _annotated(entry: Labelled, images: Path) -> Annotated:
    sized = (entry.boxes[:, 2:] > 0).all(axis=1)
    boxes, points = entry.boxes[sized], entry.landmarks[sized]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    known = bool(np.isfinite(points).any())
    faces = Faces.annotated(corners, points if known else None)
    return Annotated(entry.name, images / entry.name, faces)


def with_landmarks(pictures: PictureSet, labels: Path) -> PictureSet:
    """Return pictures with the landmarks that a ``label.txt`` gives to the same boxes.

    Faces whose box it does not have stay without; boxes of its own are not taken over.
    """
    known = {
        entry.name: {
            tuple(box): points
            for box, points in zip(entry.boxes.round().tolist(), entry.landmarks, strict=True)
        }
        for entry in parse_labels(labels)
    }
    return replace(
        pictures, pictures=tuple(_joined(one, known.get(one.name, {})) for one in pictures)
    )


def _joined(one: Annotated, known: dict[tuple[float, ...], npt.NDArray[np.float64]]) -> Annotated:
    boxes = one.faces.boxes.astype(np.float64)
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round().tolist()
    unknown = np.full((_POINTS, 2), np.nan)
    points = np.array([known.get(tuple(box), unknown) for box in sized]).reshape(-1, _POINTS, 2)
    if not np.isfinite(points).any():
        return one
    return replace(one, faces=replace(one.faces, landmarks=points.astype(np.float32)))


def write_labels(pictures: PictureSet, target: Path) -> Path:
    """Write the faces of pictures as ``label.txt``; the inverse of ``parse_labels``.

    The quality of a face is its score, which is 1 for annotations.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, "".join(f"{line}\n" for one in pictures for line in _lines(one)))
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror}).\n"
            "Choose a folder that can be written and has room."
        ) from error
    return target


def _lines(one: Annotated) -> Iterator[str]:
    yield f"# {one.name}"
    for i, (x1, y1, x2, y2) in enumerate(one.faces.boxes.astype(np.float64)):
        numbers = [x1, y1, x2 - x1, y2 - y1]
        for at in range(_POINTS):
            x, y = (np.nan, np.nan)
            if one.faces.landmarks is not None:
                x, y = one.faces.landmarks[i, at].astype(np.float64)
            numbers += [x, y, 0.0] if np.isfinite([x, y]).all() else [_ABSENT] * 3
        quality = float(one.faces.scores[i])
        yield " ".join(f"{float(value):.9g}" for value in (*numbers, quality))
