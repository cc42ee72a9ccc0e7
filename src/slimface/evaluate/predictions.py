"""Predictions as files: the layout that WIDER FACE's tools read, whoever made them.

A folder for each event, in it a text file for each picture: a line with the picture's name, a line
with the number of boxes, and a line ``x y width height score`` for each box.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from slimface.core.faces import Faces
from slimface.errors import DataError, MissingError
from slimface.files import write_text

logger = logging.getLogger(__name__)

_COLUMNS = 5


def read_predictions(
    folder: Path, names: Sequence[str], *, missing_ok: bool = False
) -> tuple[list[Faces], str]:
    """Read the predictions for some pictures.

    Args:
        folder: The folder with the events.
        names: The pictures: ``event/name.jpg`` is read from ``event/name.txt``.
        missing_ok: A picture without a file has no detections. How many there are is logged.

    Returns:
        The detections of each picture, best first, and the SHA-256 of all files read, in hex.
        Boxes that stand in another order are sorted, and that is logged: the official tools take
        the order of the file for the order of the scores.

    Raises:
        MissingError: The folder, or without ``missing_ok`` a file in it, is not there.
        DataError: A line breaks the format; the message says which.
    """
    if not folder.is_dir():
        raise MissingError(
            f"{folder}: there is no such folder.\n"
            "Name the folder that holds a folder of .txt files for each event."
        )
    detections: list[Faces] = []
    digest = hashlib.sha256()
    missing: list[Path] = []
    unsorted = 0
    for name in names:
        file = folder / _text_name(name)
        if not file.is_file():
            missing.append(file)
            detections.append(Faces.none())
            continue
        content = file.read_bytes()
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
        faces = _parse(content, file, name)
        if (np.diff(faces.scores) > 0).any():
            faces = faces.select(np.argsort(-faces.scores, kind="stable"))
            unsorted += 1
        detections.append(faces)
    if missing and not missing_ok:
        raise MissingError(
            f"{len(missing)} of {len(names)} pictures have no predictions; the first file that "
            f"should be there is {missing[0]}.\n"
            "Write a file for each picture (with 0 boxes where nothing was found), or allow "
            "missing ones with --missing-ok: they then count as nothing found."
        )
    if missing:
        logger.warning("%d of %d pictures have no predictions", len(missing), len(names))
    if unsorted:
        logger.warning("%d files of predictions are not sorted by score; sorted here", unsorted)
    return detections, digest.hexdigest()


def write_predictions(folder: Path, names: Sequence[str], detections: Iterable[Faces]) -> None:
    """Write the predictions of each picture; the inverse of ``read_predictions``.

    Raises:
        OSError: The folder cannot be written. What is there is whole.
    """
    for name, faces in zip(names, detections, strict=True):
        file = folder / _text_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        boxes = faces.boxes.astype(np.float64)
        rows = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], faces.scores])
        lines = [PurePosixPath(name).name, str(len(rows))]
        # Nine digits bring every single-precision number back.
        lines += [" ".join(f"{value:.9g}" for value in row) for row in rows.tolist()]
        write_text(file, "\n".join(lines) + "\n")


def _text_name(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".txt"))


def _parse(content: bytes, file: Path, name: str) -> Faces:
    lines = content.decode("utf-8", errors="replace").rstrip().split("\n")
    title = PurePosixPath(lines[0].strip().replace("\\", "/")).name
    stem = PurePosixPath(name).stem
    if title not in (stem, PurePosixPath(name).name):
        _fail(file, 1, f"expected the name of the picture, {stem}, got {lines[0].strip()[:80]!r}")
    count = lines[1].strip() if len(lines) > 1 else ""
    if not (count.isascii() and count.isdigit()):
        _fail(file, 2, f"expected the number of boxes, got {count[:80]!r}")
    if int(count) != len(lines) - 2:
        _fail(file, 2, f"it promises {count} boxes, but {len(lines) - 2} lines follow")
    numbers = np.zeros((len(lines) - 2, _COLUMNS))
    for i, line in enumerate(lines[2:]):
        try:
            numbers[i] = [float(cell) for cell in line.split()]
        except ValueError:
            _fail(file, i + 3, f"expected five numbers x y width height score, got {line[:80]!r}")
    wrong = ~np.isfinite(numbers).all(axis=1) | (numbers[:, 2:4] < 0).any(axis=1)
    if wrong.any():
        i = int(wrong.argmax())
        _fail(file, i + 3, f"numbers must be finite and sides not negative, got {lines[i + 2]!r}")
    corners = np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:4]], axis=1)
    return Faces(corners.astype(np.float32), numbers[:, 4].astype(np.float32))


def _fail(file: Path, line: int, what: str) -> NoReturn:
    raise DataError(
        f"{file}:{line}: {what}.\n"
        "A file has the picture's name, the number of boxes, and a line 'x y width height score' "
        "for each; write it again."
    )
