"""Plans: how a sample comes out of its picture, decided before a pixel is decoded."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np

from slimface.core.faces import Faces
from slimface.deploy.pipeline import Picture

MEAN_COLOUR = (123, 117, 104)
"""Red, green, blue of an average picture (ImageNet); what lies outside a picture is filled with."""

_REDUCTIONS: tuple[Literal[8, 4, 2], ...] = (8, 4, 2)


class Window(NamedTuple):
    """A square of a picture, in its pixels; it may reach beyond the picture."""

    x: float
    y: float
    side: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a sample comes out of its picture, decided before a pixel is decoded."""

    size_px: int
    reduction: Literal[1, 2, 4, 8]
    """The picture is to be decoded at this fraction of its sides: 1, 2, 4 or 8."""

    source: tuple[int, int, int, int]
    """x1, y1, x2, y2 of the region that is shown, in pixels of the reduced picture."""

    target: tuple[int, int, int, int]
    """Where that region goes in the sample; the rest of it is filled with the mean colour."""

    faces: Faces
    """The faces of the sample, in its pixels."""

    interpolation: int = cv2.INTER_AREA
    mirror: bool = False
    colour: "Recolour | None" = None

    def render(self, picture: Picture) -> Picture:
        """Return the sample, shape ``(size_px, size_px, 3)``, from the reduced picture."""
        x1, y1, x2, y2 = self.source
        left, top, right, bottom = self.target
        shown = picture[y1:y2, x1:x2]
        size = (right - left, bottom - top)
        patch = cv2.resize(shown, size, interpolation=self.interpolation)
        if self.colour is not None:
            patch = self.colour(patch)
        if size == (self.size_px, self.size_px):
            sample = patch
        else:
            sample = np.empty((self.size_px, self.size_px, 3), dtype=np.uint8)
            sample[:] = MEAN_COLOUR
            sample[top:bottom, left:right] = patch
        return np.asarray(cv2.flip(sample, 1) if self.mirror else sample, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Recolour:
    """Brightness, contrast, saturation and hue in one pass over the pixels."""

    brightness: float = 1
    """Factor of every channel."""

    contrast: float = 1
    """Factor of the distance from the mean grey."""

    saturation: float = 1
    hue_degrees: float = 0
    shift: float = 0
    """Added to every channel before anything else."""

    def __call__(self, picture: Picture) -> Picture:
        """Return the picture in other colours."""
        grey = _TO_YIQ[0]
        mean = float(picture[::4, ::4].reshape(-1, 3).mean(axis=0) @ grey)
        angle = np.deg2rad(self.hue_degrees)
        turn = self.saturation * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        chroma = np.eye(3)
        chroma[1:, 1:] = turn
        linear = self.brightness * self.contrast * (_FROM_YIQ @ chroma @ _TO_YIQ)
        offset = np.full((3, 1), self.brightness * ((1 - self.contrast) * mean + self.shift))
        matrix = np.hstack([linear, offset]).astype(np.float32)
        return np.asarray(cv2.transform(picture, matrix), dtype=np.uint8)


_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def look_through(
    window: Window,
    shape: tuple[int, int],
    faces: Faces,
    size_px: int,
    min_area_px: float,
    *,
    reduce: bool,
) -> Plan:
    """Plan to show what a window shows; the window moves by less than a pixel to the grid."""
    shrink = window.side / size_px
    reduction: Literal[1, 2, 4, 8] = 1
    if reduce:
        reduction = next((r for r in _REDUCTIONS if r <= shrink), 1)
    x1, x2, left, right = _on_grid(window.x, window.side, shape[1], size_px, reduction)
    y1, y2, top, bottom = _on_grid(window.y, window.side, shape[0], size_px, reduction)
    scale = (right - left) / (x2 - x1) / reduction, (bottom - top) / (y2 - y1) / reduction
    shift = left - x1 * reduction * scale[0], top - y1 * reduction * scale[1]
    return Plan(
        size_px,
        reduction,
        (x1, y1, x2, y2),
        (left, top, right, bottom),
        _inside(faces.moved(scale=scale, shift=shift), size_px, min_area_px),
    )


def _on_grid(
    start: float, side: float, length: int, size_px: int, reduction: int
) -> tuple[int, int, int, int]:
    """First and last pixel of the region shown, in the reduced picture and in the sample."""
    cells = -(-length // reduction)
    low = int(np.clip(np.floor(start / reduction), 0, cells - 1))
    high = int(np.clip(np.ceil((start + side) / reduction), low + 1, cells))
    scale = size_px / side
    first = int(np.clip(round((low * reduction - start) * scale), 0, size_px - 1))
    last = int(np.clip(round((high * reduction - start) * scale), first + 1, size_px))
    return low, high, first, last


def _inside(faces: Faces, size_px: int, min_area_px: float) -> Faces:
    """The faces with their centre inside, clipped, and large enough."""
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    boxes = np.clip(faces.boxes, 0, size_px)
    shown = ((centres > 0) & (centres < size_px)).all(axis=1)
    large = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > min_area_px
    return replace(faces, boxes=boxes).select(shown & large)


def mirrored(plan: Plan) -> Plan:
    """Return the plan with picture and faces mirrored left to right."""
    return replace(plan, mirror=True, faces=plan.faces.mirrored(plan.size_px))
