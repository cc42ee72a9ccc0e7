"""The annotation files of WIDER FACE, as text and as MATLAB files."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from slimface.data.pictures import ATTRIBUTE_NAMES
from slimface.errors import DataError, MissingError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_COLUMNS = 10
QUIRK = ["0"] * _COLUMNS
"""The line of zeros that stands for the faces of a picture without any."""


class Entry(NamedTuple):
    """What an annotation file says about one picture."""

    name: str
    """Path below ``images/``."""

    numbers: npt.NDArray[np.float64]
    """Shape ``(n, 10)``: x, y, width, height, then the six attributes."""

    line: int
    """Line of the name; 0 where the file has none."""

    @property
    def face_count(self) -> int:
        """Faces listed, those without a size among them."""
        return len(self.numbers)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of an annotation file, and the error that names one of them."""

    path: Path
    lines: Sequence[str]

    def fail(self, line: int, what: str) -> NoReturn:
        raise DataError(
            f"{self.path}:{line}: {what}\n"
            "A picture is a line with its path, a line with its number of faces, and a line of "
            "10 numbers for each face: x y w h blur expression illumination invalid occlusion "
            "pose.\nCorrect that line, or fetch the annotations again."
        )


def parse_txt(path: Path) -> list[Entry]:
    """Read ``wider_face_{split}_bbx_gt.txt``.

    By a quirk of the format a picture without faces has one face line all the same, of zeros.

    Raises:
        DataError: A line breaks the format; the message says which, and how.
    """
    lines = _Lines(path, [line.strip() for line in text_of(path).split("\n")])
    headers: list[tuple[int, str, int]] = []
    rows: list[int] = []
    for line, name, first, count in _pictures(lines):
        headers.append((line, name, count))
        rows += range(first, first + count)
    table = _table(rows, lines)
    entries: list[Entry] = []
    start = 0
    for line, name, count in headers:
        entries.append(Entry(name, table[start : start + count], line))
        start += count
    _check_unique(entries, path)
    return entries


def text_of(path: Path) -> str:
    """Return an annotation file's text, without its byte order mark.

    Raises:
        MissingError: It cannot be opened.
        DataError: It is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingError(
            f"{path}: the annotations cannot be read ({error.strerror}).\n"
            "Check the path and the permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8 text.\nFetch the annotations again."
        ) from None


def _pictures(source: _Lines) -> Iterator[tuple[int, str, int, int]]:
    """Yield the line number of each picture, its name, the index of its first row, its count."""
    lines = source.lines
    at, end, rows = 0, len(lines), range(0)
    while end and not lines[end - 1]:
        end -= 1
    while at < end:
        name, line = lines[at], at + 1
        if not name.lower().endswith(PICTURE_SUFFIXES):
            # A count that is too large has swallowed the next picture: the first row that is no
            # face is nearer to the mistake than the line where reading got lost.
            _check_rows(source, rows)
            source.fail(
                line,
                f"expected the path of a picture (.jpg, .jpeg or .png), found {short(name)}; "
                "the number of faces above it may be wrong.",
            )
        if not is_inside(name):
            source.fail(line, f"the path {short(name)} leads out of the folder of pictures.")
        count = lines[at + 1] if at + 1 < end else ""
        if not (count.isascii() and count.isdigit()):
            source.fail(at + 2, f"expected the number of faces of {name}, found {short(count)}.")
        first, faces = at + 2, int(count)
        rows = range(first, min(first + faces, end))
        if len(rows) < faces:
            _check_rows(source, rows)
            source.fail(
                at + 2, f"{name} should have {faces} faces, but the file ends after {len(rows)}."
            )
        yield line, name, first, faces
        at = first + faces
        if faces == 0 and at < end and lines[at].split() == QUIRK:
            at += 1


def _check_rows(source: _Lines, rows: Iterable[int]) -> None:
    for row in rows:
        if len(source.lines[row].split()) != _COLUMNS:
            source.fail(
                row + 1,
                f"expected the 10 numbers of a face, found {short(source.lines[row])}; "
                "the number of faces above it may be wrong.",
            )


def is_inside(name: str) -> bool:
    """Tell whether a relative path with slashes stays below the folder it starts from."""
    return not (
        name.startswith("/")
        or ".." in PurePosixPath(name).parts
        or "\\" in name
        or "\0" in name
        or PureWindowsPath(name).drive
    )


def _table(rows: Sequence[int], source: _Lines) -> npt.NDArray[np.float64]:
    """Turn lines into numbers, all at once; look for the culprit only if that fails."""
    words = [source.lines[row].split() for row in rows]
    if any(len(row) != _COLUMNS for row in words):
        _check_rows(source, rows)
    try:
        flat = np.array([float(word) for row in words for word in row], dtype=np.float64)
    except ValueError:
        _name_culprit(words, rows, source)
    table = flat.reshape(-1, _COLUMNS)
    labels = table[:, 4:]
    known = (labels == 0) | (labels == 1) | (labels == 2)
    wrong = ~(np.isfinite(table).all(axis=1) & known.all(axis=1))
    if wrong.any():
        row = rows[int(np.flatnonzero(wrong)[0])]
        source.fail(
            row + 1,
            f"{short(source.lines[row])} is no face: boxes are finite numbers, attributes 0, 1 "
            "or 2.",
        )
    return table


def _name_culprit(words: Iterable[list[str]], rows: Iterable[int], source: _Lines) -> NoReturn:
    for line, row in zip(words, rows, strict=True):
        for word in line:
            try:
                float(word)
            except ValueError:
                source.fail(row + 1, f"{short(word)} is not a number.")
    raise AssertionError("numbers that could not be read are all numbers")


def _check_unique(entries: Iterable[Entry], path: Path) -> None:
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.name in seen:
            raise DataError(
                f"{path}:{entry.line}: {entry.name} is listed a second time (first in line "
                f"{seen[entry.name]}).\nKeep one of the two."
            )
        seen[entry.name] = entry.line


def parse_mat(path: Path) -> list[Entry]:
    """Read ``wider_face_{split}.mat``; ``line`` counts the pictures from 1.

    Raises:
        DataError: It is no MATLAB file, or not one with WIDER FACE's variables.
        MissingError: The file is not there, or scipy is not installed.
    """
    variables = load_mat(path)
    names = ("event_list", "file_list", "face_bbx_list", *_MAT_LABELS)
    try:
        events, files, boxes, *labels = (variables[name] for name in names)
        entries = list(_mat_entries(events, files, boxes, labels))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: not the annotations of WIDER FACE ({type(error).__name__}: {error}).\n"
            f"The variables {', '.join(names)} are needed; fetch the file again."
        ) from None
    for entry in entries:
        if not is_inside(entry.name) or not np.isfinite(entry.numbers).all():
            raise DataError(
                f"{path}: picture {entry.line} ({short(entry.name)}) leads out of the folder of "
                "pictures or has a box of no number.\nFetch the file again."
            )
    _check_unique(entries, path)
    return entries


_MAT_LABELS = tuple(f"{name}_label_list" for name in ATTRIBUTE_NAMES)


def load_mat(path: Path, *variables: str) -> dict[str, Any]:
    """Read variables of a MATLAB file, all of them if none is named.

    Raises:
        DataError: It is no MATLAB file, or a variable is not in it.
        MissingError: The file is not there, or scipy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingError(
            f"Reading {path} needs scipy, which is not installed.\n"
            "Install it with: pip install 'slimface[train]', or use the annotations as text."
        ) from error
    if not path.is_file():
        raise MissingError(f"{path}: no such file.\nCheck the path.")
    try:
        content: dict[str, Any] = loadmat(path, variable_names=variables or None)
    except (
        MatReadError, ValueError, TypeError, NotImplementedError, OSError, zlib.error,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: not a MATLAB file that can be read ({error}).\nFetch the file again."
        ) from None
    for name in variables:
        if name not in content:
            raise DataError(f"{path}: it has no variable {name!r}.\nFetch the file again.")
    return content


def _mat_entries(events: Any, files: Any, boxes: Any, labels: list[Any]) -> Iterator[Entry]:
    line = 0
    for e in range(len(events)):
        event = str(events[e, 0].item())
        for i in range(len(files[e, 0])):
            line += 1
            corner_size = np.asarray(boxes[e, 0][i, 0], dtype=np.float64).reshape(-1, 4)
            columns = [
                np.asarray(label[e, 0][i, 0], dtype=np.float64).reshape(-1, 1) for label in labels
            ]
            name = f"{event}/{files[e, 0][i, 0].item()}.jpg"
            yield Entry(name, np.concatenate([corner_size, *columns], axis=1), line)


def short(text: str, limit: int = 60) -> str:
    """Return a piece of a file as an error message can show it."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…") if text else "nothing"
