"""Sheets: annotation files read line by line, however broken, and written back without what is.

The readers stop at the first mistake, because training on half a data set helps nobody. Here every
line is looked at, and each mistake becomes a finding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from slimface.core.faces import LANDMARK_NAMES
from slimface.data.annotations import PICTURE_SUFFIXES, QUIRK, is_inside, short, text_of
from slimface.data.landmarks import LABELS, Place, check_name, read_face
from slimface.errors import DataError, MissingError

Box = tuple[float, float, float, float]
_WIDER_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or not as one would think."""

    rule: str
    """Key of ``slimface.data.doctor.RULES``."""

    file: Path
    line: int
    """Line of ``file``; 0 where it has none."""

    picture: str
    what: str

    @property
    def place(self) -> str:
        """``file:line``, as editors understand it."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class Row:
    """The line of one face."""

    line: int
    box: Box
    """x, y, width, height."""

    rest: tuple[str, ...]
    """The other words of the line, as they are."""

    landmarks: tuple[tuple[float, float], ...] = ()
    """Those that are known, as x, y."""

    def without_landmarks(self) -> "Row":
        """Return the line of a face of which no landmark is known."""
        points = 3 * len(LANDMARK_NAMES)
        return replace(self, rest=("-1",) * points + self.rest[points:], landmarks=())


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a sheet."""

    name: str
    line: int
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sheet:
    """An annotation file: what it says, and what is wrong with how it says it."""

    path: Path
    images: Path
    """The folder of its pictures."""

    kind: Literal["widerface", "labels"]
    entries: dict[str, Entry] = field(default_factory=dict)
    """By the name of the picture, in the order of the file."""

    findings: list[Finding] = field(default_factory=list)

    def written(self, entries: list[Entry]) -> str:
        """Return the text of a sheet of this kind that has these entries."""
        return "".join(f"{line}\n" for entry in entries for line in self._lines(entry))

    def _lines(self, entry: Entry) -> Iterator[str]:
        rows = [" ".join([*(f"{side:.9g}" for side in row.box), *row.rest]) for row in entry.rows]
        if self.kind == "labels":
            yield f"# {entry.name}"
        else:
            yield entry.name
            yield str(len(rows))
        yield from rows or ([" ".join(QUIRK)] if self.kind == "widerface" else [])


def sheets_of(root: Path) -> list[Sheet]:
    """Read every annotation file of a folder in the layout of WIDER FACE or RetinaFace.

    Raises:
        MissingError: There is none.
    """
    sheets = []
    for split in ("train", "val"):
        official = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        if official.is_file():
            sheets.append(read_wider(official, root / f"WIDER_{split}" / "images"))
        for folder in (root / f"WIDER_{split}", root / split):
            if (folder / LABELS).is_file():
                sheets.append(read_labels(folder / LABELS, folder / "images"))
    if not sheets:
        raise MissingError(
            f"{root} holds no annotations as text: neither wider_face_split/"
            f"wider_face_train_bbx_gt.txt nor train/{LABELS}, nor those of val.\n"
            "Name the folder that holds them."
        )
    return sheets


def read_labels(path: Path, images: Path) -> Sheet:
    """Read a ``label.txt`` with all its mistakes."""
    sheet = Sheet(path, images, "labels")
    entry: Entry | None = None
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        text, place = line.strip(), Place(path, number)
        try:
            if text.startswith("#"):
                # Faces below a line that cannot be read belong to nobody.
                entry = None
                entry = Entry(check_name(place, text), number)
                _add(sheet, entry)
            elif text and entry is not None:
                box, points = read_face(place, text)
                x, y, width, height = box[:4]
                known = points[np.isfinite(points).all(axis=1)].tolist()
                pairs = tuple((float(a), float(b)) for a, b in known)
                rest = tuple(text.split()[4:])
                entry.rows.append(Row(number, (x, y, width, height), rest, pairs))
            elif text:
                place.fail(f"{short(text)} belongs to no picture.")
        except DataError as error:
            name = entry.name if entry else ""
            sheet.findings.append(Finding("format", path, number, name, _reason(error, path)))
    return sheet


def read_wider(path: Path, images: Path) -> Sheet:
    """Read ``wider_face_{split}_bbx_gt.txt`` with all its mistakes.

    A picture's faces are the lines down to the next path, whatever their number is said to be.
    """
    sheet = Sheet(path, images, "widerface")
    lines = [line.strip() for line in text_of(path).split("\n")]
    starts = [i for i, line in enumerate(lines) if line.lower().endswith(PICTURE_SUFFIXES)]
    for stray in range(starts[0] if starts else len(lines)):
        if lines[stray]:
            what = f"{short(lines[stray])} belongs to no picture"
            sheet.findings.append(Finding("format", path, stray + 1, "", what))
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        _wider_picture(sheet, lines, start, end)
    return sheet


def _wider_picture(sheet: Sheet, lines: list[str], start: int, end: int) -> None:
    name = lines[start]
    if not is_inside(name):
        what = f"the path {short(name)} leads out of the folder of pictures"
        sheet.findings.append(Finding("format", sheet.path, start + 1, name, what))
        return
    entry = Entry(name, start + 1)
    rows = [i for i in range(start + 1, end) if lines[i]]
    count = lines[rows[0]] if rows else ""
    said = int(count) if count.isascii() and count.isdigit() else None
    faces = rows[1:] if said is not None else rows
    if [lines[i].split() for i in faces] == [QUIRK]:
        faces, said = [], said and 0
    if said != len(faces):
        what = f"{name} has {len(faces)} lines of faces, not {count or 'nothing'}"
        sheet.findings.append(Finding("count", sheet.path, start + 2, name, what))
    for i in faces:
        row = _wider_row(i + 1, lines[i])
        if isinstance(row, str):
            sheet.findings.append(Finding("format", sheet.path, i + 1, name, row))
        else:
            entry.rows.append(row)
    _add(sheet, entry)


def _wider_row(line: int, text: str) -> Row | str:
    words = text.split()
    if len(words) != _WIDER_COLUMNS:
        return f"expected the 10 numbers of a face, found {len(words)}: {short(text)}"
    try:
        x, y, width, height, *marks = (float(word) for word in words)
    except ValueError:
        return f"{short(text)} is not all numbers"
    if not np.isfinite([x, y, width, height]).all() or not set(marks) <= {0.0, 1.0, 2.0}:
        return f"{short(text)} is no face: boxes are finite, attributes 0, 1 or 2"
    return Row(line, (x, y, width, height), tuple(words[4:]))


def _add(sheet: Sheet, entry: Entry) -> None:
    first = sheet.entries.setdefault(entry.name, entry)
    if first is entry:
        return
    what = f"{entry.name} is listed a second time (first in line {first.line})"
    sheet.findings.append(Finding("listed twice", sheet.path, entry.line, entry.name, what))


def _reason(error: DataError, path: Path) -> str:
    first = str(error).partition("\n")[0].removeprefix(f"{path}:")
    return first.partition(": ")[2].rstrip(".")
