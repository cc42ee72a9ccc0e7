"""Pictures: examples with the faces found before and after, small enough for a page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.deploy.draw import encode
from slimface.deploy.media import read_picture
from slimface.deploy.pixels import Picture, area
from slimface.errors import SlimfaceError
from slimface.report.markup import Html, join, tag
from slimface.report.run import Entry, mapping, number, sequence

MOST = 8
"""Pictures a card shows at most."""

LONGEST_PX = 720
"""Longer side of an embedded picture."""

_START_HEIGHT_PX = 236
_MAX_PIXELS = 50_000_000
_MOST_TEXT = 2_400_000
_SAME = 0.5

Rows = Sequence[tuple[Sequence[float], float]]
"""Boxes, each with its score."""


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of the card, before and after."""

    name: str
    before: Html
    """Markup of the picture with its boxes; empty where only one side was recorded."""

    after: Html
    words: str
    """What differs, in a sentence."""

    width_px: int
    """Width on the page to start from; pictures grow until their row is full."""


def save_example(
    folder: Path,
    name: str,
    picture: Picture,
    *,
    before: Faces | None,
    after: Faces,
    truth: Faces | None = None,
) -> dict[str, Any]:
    """Write a picture below ``folder/pictures`` and return its line of a ``pictures`` record.

    Args:
        folder: The run folder.
        name: Name of the picture for people; its file is named after it.
        picture: The picture.
        before: What the model found before the change, if there was one.
        after: What the model finds now.
        truth: The annotated faces, if they are known.
    """
    places = folder / "pictures"
    places.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    path = places / f"{stem}.jpg"
    path.write_bytes(_jpeg(picture))
    height, width = picture.shape[:2]
    line = {
        "name": name,
        "path": f"pictures/{path.name}",
        "height": height,
        "width": width,
        "before": before.as_rows() if before is not None else None,
        "after": after.as_rows(),
        "truth": truth.as_rows() if truth is not None else None,
    }
    return {key: value for key, value in line.items() if value is not None}


def examples(folder: Path, entries: Sequence[Entry]) -> tuple[list[Example], list[str]]:
    """Return the examples of ``pictures`` records, and a sentence for each that cannot be shown."""
    shown: list[Example] = []
    notes: list[str] = []
    room = _MOST_TEXT
    lines = [mapping(x) for entry in entries for x in sequence(entry.record.get("pictures"))]
    for line in lines[:MOST]:
        name = str(line.get("name") or line.get("path") or "picture")
        picture = _read(folder, str(line.get("path", "")))
        if picture is None:
            notes.append(f"The picture {name} is not in the run folder or is no picture.")
        else:
            example = _example(f"picture-{len(shown) + 1}", name, picture, line)
            room -= len(example.before) + len(example.after)
            if room < 0:
                break
            shown.append(example)
    if len(shown) + len(notes) < len(lines):
        notes.append(f"{len(shown)} of {len(lines)} pictures are shown; more would not fit.")
    return shown, notes


def _example(key: str, name: str, picture: Picture, line: Mapping[str, Any]) -> Example:
    height = number(line.get("height")) or picture.shape[0]
    width = number(line.get("width")) or picture.shape[1]
    first, last, truth = (_rows(line.get(side)) for side in ("before", "after", "truth"))
    data = base64.b64encode(_jpeg(picture)).decode()
    image = tag("image", href=f"data:image/jpeg;base64,{data}", id=key, width=width, height=height)

    def drawn(what: Html, rows: Rows, others: Rows | None, side: str) -> Html:
        alone = set() if others is None else _unmatched(rows, others)
        missed = [(truth or [])[i] for i in sorted(_unmatched(truth or [], rows))]
        boxes = [_box(box, None, "missed") for box, _ in missed]
        boxes += [
            _box(box, score, f"{side} alone" if i in alone else side)
            for i, (box, score) in enumerate(rows)
        ]
        return tag(
            "svg",
            what,
            *boxes,
            viewBox=f"0 0 {width:g} {height:g}",
            role="img",
            aria_label=f"{name}: {_faces(len(rows))} found {side} the change",
        )

    again = tag("use", href=f"#{key}")
    before = drawn(image, first, last or [], "before") if first is not None else Html()
    after = drawn(image if first is None else again, last or [], first, "after")
    room = _START_HEIGHT_PX * width / max(height, 1) * (1 if first is None else 2)
    return Example(name, before, after, _words(first, last or [], truth), round(room))


def _words(first: Rows | None, last: Rows, truth: Rows | None) -> str:
    """Return what was found on each side, what changed, and how much of the truth that is."""
    if first is None:
        parts = [f"{_faces(len(last))} found"]
    else:
        lost, new = len(_unmatched(first, last)), len(_unmatched(last, first))
        parts = [f"{_faces(len(first))} before, {len(last)} after"]
        parts += [f"{lost} lost"] if lost else []
        parts += [f"{new} new"] if new else []
        parts += [] if lost or new else ["all the same"]
    if truth:
        found = [
            str(len(truth) - len(_unmatched(truth, rows)))
            for rows in (first, last)
            if rows is not None
        ]
        parts.append(f"{' and '.join(found)} of the {len(truth)} annotated")
    return "; ".join(parts)


def _faces(count: int) -> str:
    return "1 face" if count == 1 else f"{count} faces"


def _box(box: Sequence[float], score: float | None, tone: str) -> Html:
    x1, y1, x2, y2 = box
    said = "annotated and not found" if score is None else f"score {score:.2f}"
    return tag(
        "rect",
        tag("title", f"{said}, {x2 - x1:.0f} × {y2 - y1:.0f} px"),
        x=f"{x1:.1f}",
        y=f"{y1:.1f}",
        width=f"{max(x2 - x1, 0):.1f}",
        height=f"{max(y2 - y1, 0):.1f}",
        class_=f"face {tone}",
    )


def _rows(value: object) -> Rows | None:
    """Return boxes and scores, without what is not four finite numbers; None if not recorded."""
    if not isinstance(value, list):
        return None
    rows = []
    for item in value:
        box = [number(side) for side in sequence(mapping(item).get("box"))]
        sides = [side for side in box if side is not None]
        if len(box) == len(sides) == 4:
            rows.append((sides, number(mapping(item).get("score")) or 0.0))
    return rows


def _unmatched(some: Rows, others: Rows) -> set[int]:
    """Return which of ``some`` overlap none of ``others`` by half."""
    if not some or not others:
        return set(range(len(some)))
    first, second = (np.asarray([box for box, _ in rows], np.float32) for rows in (some, others))
    best = overlaps(first, second).max(axis=1)
    return {int(i) for i in np.flatnonzero(best < _SAME)}


def _read(folder: Path, path: str) -> Picture | None:
    """Return a picture below ``folder``, whatever ``path`` pretends; None if there is none."""
    place = (folder / path).resolve()
    if not path or not place.is_relative_to(folder.resolve()):
        return None
    try:
        return read_picture(place, max_pixels=_MAX_PIXELS)
    except SlimfaceError:
        return None


def _jpeg(picture: Picture) -> bytes:
    """Return the picture as a JPEG whose longer side has at most ``LONGEST_PX`` pixels."""
    shrink = LONGEST_PX / max(picture.shape[:2])
    if shrink < 1:
        height, width = (max(1, round(side * shrink)) for side in picture.shape[:2])
        picture = area(picture, height, width)
    return encode(picture, "JPEG", quality=80)


def legend() -> Html:
    """Return what the colours of the boxes mean."""
    names = (
        ("before", "found before"),
        ("after", "found after"),
        ("alone", "only on that side"),
        ("missed", "annotated, not found"),
    )
    return join(*[tag("span", tag("i", class_=f"key box {tone}"), text) for tone, text in names])
