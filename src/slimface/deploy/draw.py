"""Draw faces on pictures, and write pictures whole or not at all."""

import io
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from slimface.core.faces import Faces
from slimface.deploy.pixels import Picture
from slimface.errors import DataError
from slimface.files import beside

BOX_COLOUR = (70, 235, 110)
OUTLINE_COLOUR = (16, 24, 20)
POINT_COLOUR = (255, 196, 0)

Format = Literal["JPEG", "PNG", "WEBP", "BMP"]

JPEG_QUALITY = 95
_FORMATS: Mapping[str, Format] = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
}

_STEPS = 8
"""Points lie on so many places a pixel, across and down."""

Coverage = npt.NDArray[np.float32]
"""Shape ``(height, width, 1)``: a share of each pixel, in [0, 1]."""


def draw(picture: Picture, faces: Faces, *, scores: bool = True) -> Picture:
    """Return a copy of the picture with boxes, landmarks and scores.

    Lines grow with the picture. Every line has a dark edge, so that it shows on any ground; the
    best faces are drawn last, on top. Scores that would be larger than their face are left out.
    """
    canvas = picture.copy()
    width = max(1, round(max(picture.shape[:2]) / 500))
    for i in reversed(range(len(faces))):
        box = _clipped(faces.boxes[i], canvas)
        _rectangle(canvas, box, width)
        if faces.landmarks is not None and np.isfinite(faces.landmarks[i]).all():
            for x, y in faces.landmarks[i].tolist():
                _dot(canvas, x, y, width + 1)
        if scores:
            _label(canvas, box, f"{faces.scores[i]:.2f}", width)
    return canvas


def _clipped(box: np.ndarray, canvas: Picture) -> tuple[int, int, int, int]:
    height, width = canvas.shape[:2]
    limits = np.asarray([width, height, width, height], dtype=np.float32) - 1
    x1, y1, x2, y2 = np.clip(np.nan_to_num(box), 0, limits).round().astype(int).tolist()
    return x1, y1, x2, y2


def _rectangle(canvas: Picture, box: tuple[int, int, int, int], width: int) -> None:
    x1, y1, x2, y2 = box
    for thick, colour in ((width + 2, OUTLINE_COLOUR), (width, BOX_COLOUR)):
        low, high = (thick - 1) // 2, thick // 2 + 1
        left, top = max(0, x1 - low), max(0, y1 - low)
        for y in (y1, y2):
            canvas[max(0, y - low) : y + high, left : x2 + high] = colour
        for x in (x1, x2):
            canvas[top : y2 + high, max(0, x - low) : x + high] = colour


def _dot(canvas: Picture, x: float, y: float, radius: int) -> None:
    """Lay a point with a dark edge over the canvas; what reaches out of it is cut off."""
    # Rounded to what nobody can see, a point is one of a few that are kept.
    x, y = round(x * _STEPS) / _STEPS, round(y * _STEPS) / _STEPS
    keeps, adds = _stamp(radius, x % 1, y % 1)
    left, top = math.floor(x) - radius - 2, math.floor(y) - radius - 2
    height, width = canvas.shape[:2]
    if left >= width or top >= height or min(left, top) <= -len(keeps):
        return
    rows, columns = slice(max(0, -top), height - top), slice(max(0, -left), width - left)
    place = canvas[max(0, top) : top + len(keeps), max(0, left) : left + len(keeps)]
    mixed = place * keeps[rows, columns]
    mixed += adds[rows, columns]
    place[:] = mixed


@lru_cache(maxsize=2 * _STEPS**2)
def _stamp(radius: int, x: float, y: float) -> tuple[Coverage, npt.NDArray[np.float32]]:
    """How much of the ground a point leaves, and what it adds, for a centre in the first pixel."""
    rows, columns = np.ogrid[-radius - 2 : radius + 3, -radius - 2 : radius + 3]
    distance = np.hypot(columns - x, rows - y)[:, :, None]
    keeps = np.ones_like(distance)
    adds = np.full_like(distance, 0.5)  # from cutting digits off to rounding
    for reach, colour in ((radius + 1, OUTLINE_COLOUR), (radius, POINT_COLOUR)):
        covers = np.clip(reach + 0.5 - distance, 0, 1)
        keeps, adds = keeps * (1 - covers), adds * (1 - covers) + covers * (np.array(colour) + 0.5)
    return keeps.astype(np.float32), adds.astype(np.float32)


def _label(canvas: Picture, box: tuple[int, int, int, int], text: str, width: int) -> None:
    plate = _plate(text, 9 + 3 * width, 1 + width)
    high, wide = plate.shape[:2]
    x1, y1, x2, _ = box
    if x2 - x1 < (wide - 2 * (1 + width)) * 0.8:
        return
    # Above the box, or inside of it where the picture ends.
    top = y1 - high if y1 >= high else y1
    left = max(0, min(x1, canvas.shape[1] - wide))
    place = canvas[top : top + high, left : left + wide]
    place[:] = plate[: place.shape[0], : place.shape[1]]


@lru_cache(maxsize=256)
def _plate(text: str, size_px: int, margin: int) -> Picture:
    """Return a text on dark ground."""
    font = _font(size_px)
    left, top, right, bottom = font.getbbox(text)
    sheet = Image.new(
        "RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), OUTLINE_COLOUR
    )
    ImageDraw.Draw(sheet).text((margin - left, margin - top), text, fill=BOX_COLOUR, font=font)
    return np.asarray(sheet)


@lru_cache(maxsize=8)
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)


def encode(picture: Picture, kind: Format, *, quality: int = JPEG_QUALITY) -> bytes:
    """Return the content of a picture file; ``quality``, to 100, is that of a JPEG."""
    content = io.BytesIO()
    # Each format takes what it knows of these.
    Image.fromarray(picture).save(
        content, kind, quality=quality, compress_level=3, lossless=kind == "WEBP"
    )
    return content.getvalue()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture in the format its name asks for; folders are made, nothing stays half-done.

    Raises:
        DataError: The name ends in no format that can be written.
        OSError: The disk is full or the folder cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DataError(
            f"{path}: a picture cannot be written as '{suffix}'.\n"
            "Name it .jpg, .png, .webp or .bmp."
        )
    content = encode(picture, _FORMATS[suffix])
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as part:
        part.write_bytes(content)
