"""Augmentation that moves faces with their pixels.

An augmentation first plans, from the size of a picture and its faces alone, and then renders the
plan. Only the region that the sample shows is resized, and whoever has the compressed file can
decode it at the fraction of its size that the plan asks for.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from slimface.core.faces import Faces, Floats
from slimface.core.value import Value
from slimface.deploy.pipeline import Picture

MEAN_COLOUR = (123, 117, 104)
"""Red, green, blue of an average picture (ImageNet); what lies outside a picture is filled with."""

_REDUCTIONS: tuple[Literal[8, 4, 2], ...] = (8, 4, 2)
_INTERPOLATIONS = (
    # The other nearest neighbour of OpenCV is half a pixel off.
    cv2.INTER_NEAREST_EXACT,
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)
_TRIES = 50


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
    contrast: float = 1
    saturation: float = 1
    hue_degrees: float = 0

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
        offset = np.full((3, 1), self.brightness * (1 - self.contrast) * mean)
        matrix = np.hstack([linear, offset]).astype(np.float32)
        return np.asarray(cv2.transform(picture, matrix), dtype=np.uint8)


_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class _Augmentation(Value):
    """What all augmentations share: to be called is to plan and to render."""

    mirror: float = Field(default=0.5, ge=0, le=1)
    """Share of samples that are mirrored left to right."""

    min_area_px: float = Field(default=36, ge=0)
    """Faces that show no larger area than this, in pixels of the sample, are dropped."""

    def __call__(
        self, picture: Picture, faces: Faces, rng: np.random.Generator, size_px: int
    ) -> tuple[Picture, Faces]:
        """Return a sample of ``size_px`` x ``size_px`` pixels and the faces on it, maybe none."""
        plan = self.plan((picture.shape[0], picture.shape[1]), faces, rng, size_px)
        return plan.render(picture), plan.faces

    def plan(
        self,
        shape: tuple[int, int],
        faces: Faces,
        rng: np.random.Generator,
        size_px: int,
        *,
        reduce: bool = False,
    ) -> Plan:
        """Decide on a sample of a picture of this height and width, with these faces.

        With ``reduce`` the picture can be decoded at a fraction of its size, where the sample
        needs no more; without, the plan's ``reduction`` is 1.
        """
        raise NotImplementedError


class PlainAugment(_Augmentation):
    """The whole picture, resized with its aspect kept, and mirrored."""

    kind: Literal["plain"] = "plain"

    def plan(
        self,
        shape: tuple[int, int],
        faces: Faces,
        rng: np.random.Generator,
        size_px: int,
        *,
        reduce: bool = False,
    ) -> Plan:
        """Decide on a sample of a picture of this height and width."""
        window = Window(0, 0, max(shape))
        plan = _look_through(window, shape, faces, size_px, self.min_area_px, reduce=reduce)
        return _mirrored(plan) if rng.random() < self.mirror else plan


class S3fdAugment(_Augmentation):
    """The augmentation of S3FD, PyramidBox and EResFD.

    With a probability of ``anchor_share``, data-anchor sampling: a random face is brought to about
    the size of a random anchor, at most one step above the nearest of its own size, and a window
    that holds it is cut out. Otherwise a square crop of 0.3 to 1 times the shorter side that holds
    at least one face. Then colour and mirror. Faces with their centre inside stay.

    It differs from the code that trained EResFD on purpose:

    - The window is cut out first and resized then, so that no picture of 12,000 pixels arises.
    - Windows of data-anchor sampling are drawn where they are valid instead of by trial, and stay
      inside pictures that are larger than they are: no padding where there are pixels.
    - What is outside the picture has the mean colour; there the mean of blue was used for red. It
      is padded on all sides; there a window past the right or lower edge was stretched.
    - Where no square crop holds a face, the whole picture is shown with its aspect kept; there it
      was stretched to a square.
    - Boxes are clipped to the sample in both branches; there in square crops alone.
    - Sizes above 0.8 of the sample are no targets: 512 for 640 pixels as there, 256 for 320.
    - Brightness, contrast and saturation commute, and hue is a rotation in YIQ, which commutes
      with them too: one linear map, without a coin for the order and rounding in between.
    - Five filters of OpenCV instead of five of Pillow, once instead of twice; none of this happens
      in validation.
    - Every draw comes from the generator that is handed in.

    Source: Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017,
    arXiv:1708.05237, section 3.3; Tang et al., "PyramidBox", ECCV 2018, arXiv:1803.07737, section
    3.4 (data-anchor sampling).
    """

    kind: Literal["s3fd"] = "s3fd"
    anchor_share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples that data-anchor sampling makes; square crops make the others."""

    sizes: tuple[float, ...] = (16, 32, 64, 128, 256, 512)
    """Sides that faces are brought to, in pixels of the sample, rising."""

    colour_share: float = Field(default=0.5, ge=0, le=1)
    """Probability of each of the four changes of colour."""

    brightness: float = Field(default=0.125, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue_degrees: float = Field(default=25, ge=0, le=180)

    def plan(
        self,
        shape: tuple[int, int],
        faces: Faces,
        rng: np.random.Generator,
        size_px: int,
        *,
        reduce: bool = False,
    ) -> Plan:
        """Decide on a sample of a picture of this height and width."""
        if len(faces) and rng.random() < self.anchor_share:
            window = self._anchor_window(shape, faces, rng, size_px)
        else:
            window = _square_window(shape, faces.boxes, rng)
        plan = _look_through(window, shape, faces, size_px, self.min_area_px, reduce=reduce)
        plan = replace(
            plan,
            interpolation=_INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))],
            colour=self._recolour(rng),
        )
        return _mirrored(plan) if rng.random() < self.mirror else plan

    def _anchor_window(
        self, shape: tuple[int, int], faces: Faces, rng: np.random.Generator, size_px: int
    ) -> Window:
        box = faces.boxes[rng.integers(len(faces))].astype(np.float64)
        face_side = float(np.sqrt(np.prod(box[2:] - box[:2] + 1)))
        sizes = np.array([s for s in self.sizes if s <= 0.8 * size_px] or self.sizes[:1])
        nearest = int(np.abs(sizes - face_side).argmin())
        target = sizes[rng.integers(min(nearest + 1, len(sizes) - 1) + 1)]
        scale = target / face_side * 2 ** rng.uniform(-1, 1)
        side = size_px / scale
        x = _offset(box[0], box[2], shape[1], side, rng)
        y = _offset(box[1], box[3], shape[0], side, rng)
        return Window(x, y, side)

    def _recolour(self, rng: np.random.Generator) -> Recolour | None:
        coins = rng.random(4) < self.colour_share
        swings = coins * rng.uniform(-1, 1, 4)
        if not coins.any():
            return None
        return Recolour(
            1 + swings[0] * self.brightness,
            1 + swings[1] * self.contrast,
            1 + swings[2] * self.saturation,
            swings[3] * self.hue_degrees,
        )


Augment = Annotated[S3fdAugment | PlainAugment, Field(discriminator="kind")]


def _offset(low: float, high: float, length: float, side: float, rng: np.random.Generator) -> float:
    """Where a window of ``side`` starts along one axis, given a face from ``low`` to ``high``."""
    if side >= length:
        return float(rng.uniform(length - side, 0))
    first, last = sorted((high - side, low))
    first, last = max(first, 0.0), min(last, length - side)
    return (
        float(rng.uniform(first, last)) if first < last else float(np.clip(low, 0, length - side))
    )


def _square_window(shape: tuple[int, int], boxes: Floats, rng: np.random.Generator) -> Window:
    """A square of 0.3 to 1 times the shorter side that covers a face, or around the picture.

    The reference draws one window from each of five samplers and picks one of those found; the
    first found in a random order of the samplers has the same distribution.
    """
    height, width = shape
    shares = rng.permutation(np.concatenate([[1.0], rng.uniform(0.3, 1, 4)]))
    for side in shares * min(height, width):
        corners = rng.random((_TRIES, 1, 2)) * (width - side, height - side)
        covered = (corners <= boxes[:, :2]) & (boxes[:, 2:] <= corners + side)
        valid = np.flatnonzero(covered.all(axis=-1).any(axis=-1))
        if len(valid):
            x, y = corners[valid[0], 0]
            return Window(float(x), float(y), float(side))
    side = max(height, width)
    x, y = rng.random(2) * (width - side, height - side)
    return Window(float(x), float(y), side)


def _look_through(
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


def _mirrored(plan: Plan) -> Plan:
    return replace(plan, mirror=True, faces=plan.faces.mirrored(plan.size_px))
