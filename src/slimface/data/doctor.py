"""Doctor: what is wrong with a folder of annotated pictures, and annotations without it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slimface.data.sheets import Entry, Finding, Row, Sheet, sheets_of
from slimface.deploy.media import read_picture
from slimface.errors import DataError, MissingError, SlimfaceError, UsageError
from slimface.files import write_text


class Rule(NamedTuple):
    """What a finding means."""

    broken: bool
    """Whether it stops or spoils a training; else it is good to know."""

    repair: str
    """What a repaired copy does about it; empty: nothing."""


RULES = {
    "format": Rule(True, "line left out"),
    "count": Rule(True, "counted"),
    "listed twice": Rule(True, "the later one left out"),
    "missing": Rule(True, "picture left out"),
    "unreadable": Rule(True, "picture left out"),
    "outside": Rule(True, "face left out"),
    "landmarks": Rule(True, "landmarks unknown"),
    # The official files hold 42 of them, and the readers leave them out.
    "no size": Rule(False, "face left out"),
    "beyond": Rule(False, "clipped to the picture"),
    "same box": Rule(False, "the later one left out"),
    "no faces": Rule(False, ""),
    "grey": Rule(False, ""),
    "turned": Rule(False, ""),
    "duplicate": Rule(False, ""),
    "not listed": Rule(False, ""),
}
"""Every rule there is, worst first."""

_BEYOND_PX = 1
"""By as much a box may pass the border: annotators counted the last pixel or not."""


class _Look(NamedTuple):
    """What a picture file is like; ``error`` says why it cannot be told."""

    error: str = ""
    missing: bool = False
    height: int = 0
    width: int = 0
    grey: bool = False
    turned: bool = False
    digest: str = ""


@dataclass
class Examination:
    """All that was found in a folder."""

    sheets: list[Sheet]
    findings: list[Finding] = field(default_factory=list)
    sound: dict[Path, list[Entry]] = field(default_factory=dict)
    """For each sheet, its entries as a repaired copy has them."""

    @property
    def broken(self) -> int:
        """Number of findings that stop or spoil a training."""
        return sum(RULES[finding.rule].broken for finding in self.findings)

    @property
    def pictures(self) -> int:
        """Number of pictures listed."""
        return sum(len(sheet.entries) for sheet in self.sheets)

    @property
    def faces(self) -> int:
        """Number of faces listed."""
        return sum(len(entry.rows) for sheet in self.sheets for entry in sheet.entries.values())


def examine(
    root: Path,
    *,
    workers: int = 1,
    track: Callable[..., Iterable[Any]] = lambda items, description, total: items,
) -> Examination:
    """Look at every line and every picture of a data set.

    Args:
        root: In the layout of WIDER FACE or RetinaFace.
        workers: Threads that decode pictures.
        track: ``track(items, description, total=n)`` hands the items on and may draw a bar.

    Raises:
        MissingError: There are no annotations.
    """
    if not root.is_dir():
        raise MissingError(f"There is no folder {root}.\nCheck the path.")
    examination = Examination(sheets_of(root))
    seen: dict[str, Path] = {}
    for sheet in examination.sheets:
        examination.findings += sheet.findings
        sound = examination.sound.setdefault(sheet.path, [])
        entries = list(sheet.entries.values())
        looks = _looks(sheet, entries, workers)
        tracked = track(looks, sheet.path.name, total=len(entries))
        for entry, look in zip(entries, tracked, strict=True):
            examination.findings += _of_picture(sheet, entry, look, seen)
            if not look.error:
                findings, rows = _of_faces(sheet, entry, look)
                examination.findings += findings
                sound.append(replace(entry, rows=rows))
        examination.findings += _not_listed(sheet)
    order = list(RULES)
    examination.findings.sort(key=lambda one: (order.index(one.rule), str(one.file), one.line))
    return examination


def _looks(sheet: Sheet, entries: list[Entry], workers: int) -> Iterator[_Look]:
    paths = (sheet.images / entry.name for entry in entries)
    if workers == 1:
        yield from map(_look_at, paths)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_look_at, paths)


def _look_at(path: Path) -> _Look:
    if not path.is_file():
        return _Look(error=f"there is no picture {path}", missing=True)
    try:
        data = path.read_bytes()
        picture = read_picture(path)
    except (SlimfaceError, OSError) as error:
        return _Look(error=str(error).partition("\n")[0])
    few = picture[::4, ::4]
    turned = False
    if b"Exif\0\0" in data:
        turned = not np.array_equal(read_picture(data, upright=False), picture)
    return _Look(
        height=picture.shape[0],
        width=picture.shape[1],
        grey=bool((few.max(axis=2) == few.min(axis=2)).all()),
        turned=turned,
        digest=hashlib.sha256(data).hexdigest(),
    )


def _of_picture(
    sheet: Sheet, entry: Entry, look: _Look, seen: dict[str, Path]
) -> Iterator[Finding]:
    def finding(rule: str, what: str) -> Finding:
        return Finding(rule, sheet.path, entry.line, entry.name, what)

    if look.error:
        yield finding("missing" if look.missing else "unreadable", look.error)
        return
    if not entry.rows:
        yield finding("no faces", "no face is annotated; training passes it by")
    if look.grey:
        yield finding("grey", "all its pixels are grey")
    if look.turned:
        yield finding("turned", "its EXIF data turn it; boxes must be those of the turned picture")
    path = sheet.images / entry.name
    first = seen.setdefault(look.digest, path)
    if first != path:
        yield finding("duplicate", f"the same file as {first}")


def _of_faces(sheet: Sheet, entry: Entry, look: _Look) -> tuple[list[Finding], list[Row]]:
    """Return what is wrong with the faces of a picture, and the faces without it."""
    findings: list[Finding] = []
    rows: list[Row] = []
    boxes: dict[tuple[float, ...], int] = {}
    for row in entry.rows:
        for rule, what in _of_face(row, look.height, look.width):
            findings.append(Finding(rule, sheet.path, row.line, entry.name, what))
        found = {finding.rule for finding in findings if finding.line == row.line}
        first = boxes.setdefault(row.box, row.line)
        if first != row.line and not found & {"no size", "outside"}:
            what = f"the same box as in line {first}"
            findings.append(Finding("same box", sheet.path, row.line, entry.name, what))
            found.add("same box")
        if found & {"no size", "outside", "same box"}:
            continue
        kept = row.without_landmarks() if "landmarks" in found else row
        rows.append(_clipped(kept, look) if "beyond" in found else kept)
    return findings, rows


def _of_face(row: Row, height: int, width: int) -> Iterator[tuple[str, str]]:
    x, y, wide, high = row.box
    size = f"the picture has {width} x {height} pixels"
    box = f"the box {x:g} {y:g} {wide:g} {high:g}"
    if wide <= 0 or high <= 0:
        yield "no size", f"{box} has no width or no height"
        return
    if x >= width or y >= height or x + wide <= 0 or y + high <= 0:
        yield "outside", f"{box} is outside: {size}"
        return
    over = max(-x, -y, x + wide - width, y + high - height)
    if over > _BEYOND_PX:
        yield "beyond", f"{box} passes the border by {over:g} pixels: {size}"
    strays = [
        (px, py)
        for px, py in row.landmarks
        if not (x - wide <= px <= x + 2 * wide and y - high <= py <= y + 2 * high)
    ]
    if strays:
        px, py = strays[0]
        yield "landmarks", f"the landmark {px:g} {py:g} is more than a face away from {box}"


def _clipped(row: Row, look: _Look) -> Row:
    x, y, wide, high = row.box
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + wide, look.width), min(y + high, look.height)
    return replace(row, box=(x1, y1, x2 - x1, y2 - y1))


def _not_listed(sheet: Sheet) -> Iterator[Finding]:
    for path in sorted(sheet.images.rglob("*")):
        name = path.relative_to(sheet.images).as_posix()
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and name not in sheet.entries:
            what = f"{sheet.path} does not list it"
            yield Finding("not listed", path, 0, name, what)


def write_repaired(examination: Examination) -> list[Path]:
    """Write each sheet without what is wrong, as ``NAME.repaired.txt`` beside the original.

    Raises:
        DataError: The folder cannot be written.
    """
    return [
        _write(
            sheet.path.with_name(f"{sheet.path.stem}.repaired{sheet.path.suffix}"),
            sheet.written(examination.sound[sheet.path]),
        )
        for sheet in examination.sheets
    ]


def write_list(examination: Examination, split: str = "val") -> Path:
    """Write the paths of the sound pictures of a split, one a line: ``val/wider_val.txt``.

    Raises:
        UsageError: The folder has no such split.
        DataError: It cannot be written.
    """
    for sheet in examination.sheets:
        folder = sheet.images.parent
        if folder.name.removeprefix("WIDER_") == split:
            names = (entry.name for entry in examination.sound[sheet.path])
            return _write(folder / f"wider_{split}.txt", "".join(f"{name}\n" for name in names))
    raise UsageError(f"There are no annotations of {split} to make a list of.\nAdd them first.")


def _write(path: Path, text: str) -> Path:
    try:
        write_text(path, text)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}).\n"
            "Make room, or make the folder writable."
        ) from error
    return path
