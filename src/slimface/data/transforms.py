"""Augmentation that moves faces with their pixels.

An augmentation first plans, from the size of a picture and its faces alone, and then renders the
plan. Only the region that the sample shows is resized, and whoever has the compressed file can
decode it at the fraction of its size that the plan asks for.
"""

from dataclasses import replace
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from slimface.core.faces import Faces, Floats
from slimface.core.value import Value
from slimface.data.plan import Plan, Recolour, Window, look_through, mirrored
from slimface.deploy.pipeline import Picture

_INTERPOLATIONS = (
    # The other nearest neighbour of OpenCV is half a pixel off.
    cv2.INTER_NEAREST_EXACT,
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)
_TRIES = 50


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
        plan = look_through(window, shape, faces, size_px, self.min_area_px, reduce=reduce)
        return mirrored(plan) if rng.random() < self.mirror else plan


class _Crops(_Augmentation):
    """What those that crop share: a window, one of five filters, other colours, maybe a mirror."""

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
        window = self._window(shape, faces, rng, size_px)
        plan = look_through(window, shape, faces, size_px, self.min_area_px, reduce=reduce)
        plan = replace(
            plan,
            interpolation=self._interpolation(rng),
            colour=self._recolour(rng),
        )
        return mirrored(plan) if rng.random() < self.mirror else plan

    def _window(
        self, shape: tuple[int, int], faces: Faces, rng: np.random.Generator, size_px: int
    ) -> Window:
        """Draw the part of the picture that a sample shows."""
        raise NotImplementedError

    def _interpolation(self, rng: np.random.Generator) -> int:
        """Draw a filter of OpenCV."""
        return _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]

    def _recolour(self, rng: np.random.Generator) -> Recolour | None:
        """Draw the change of colours; None for none."""
        raise NotImplementedError


class S3fdAugment(_Crops):
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

    native_share: float = Field(default=0, ge=0, le=1)
    """Share of all samples that are neither of the two, but windows around a random face at the
    scale of the picture itself, give or take half an octave: what a network sees when it is run.
    One that is trained already learns faster from them; the published training has none."""

    sizes: tuple[float, ...] = (16, 32, 64, 128, 256, 512)
    """Sides that faces are brought to, in pixels of the sample, rising."""

    colour_share: float = Field(default=0.5, ge=0, le=1)
    """Probability of each of the four changes of colour."""

    brightness: float = Field(default=0.125, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue_degrees: float = Field(default=25, ge=0, le=180)

    def _window(
        self, shape: tuple[int, int], faces: Faces, rng: np.random.Generator, size_px: int
    ) -> Window:
        if len(faces):
            # Without a share nothing is drawn: samples stay those that they always were.
            if self.native_share and rng.random() < self.native_share:
                side = size_px * 2 ** rng.uniform(-0.5, 0.5)
                return _window_around(_any_box(faces, rng), shape, side, rng)
            if rng.random() < self.anchor_share:
                return self._anchor_window(shape, faces, rng, size_px)
        return _square_window(shape, faces.boxes, rng)

    def _anchor_window(
        self, shape: tuple[int, int], faces: Faces, rng: np.random.Generator, size_px: int
    ) -> Window:
        box = _any_box(faces, rng)
        face_side = float(np.sqrt(np.prod(box[2:] - box[:2] + 1)))
        sizes = np.array([s for s in self.sizes if s <= 0.8 * size_px] or self.sizes[:1])
        nearest = int(np.abs(sizes - face_side).argmin())
        target = sizes[rng.integers(min(nearest + 1, len(sizes) - 1) + 1)]
        scale = target / face_side * 2 ** rng.uniform(-1, 1)
        return _window_around(box, shape, size_px / scale, rng)

    def _recolour(self, rng: np.random.Generator) -> Recolour | None:
        swings = _swings(self.colour_share, rng)
        if swings is None:
            return None
        return Recolour(
            1 + swings[0] * self.brightness,
            1 + swings[1] * self.contrast,
            1 + swings[2] * self.saturation,
            swings[3] * self.hue_degrees,
        )


class RetinaFaceAugment(_Crops):
    """The augmentation of RetinaFace and YuNet: a square crop, colour, mirror.

    The side of the crop is one of ``shares`` of the picture's shorter side; crops are drawn until
    one holds a whole face. Faces with their centre inside stay. A picture that none is found for
    is shown whole, at the upper left of the sample.

    It differs from the published code on purpose:

    - Landmarks stay where they are when a crop cuts a face; there those outside were pulled to its
      border, where no eye is. Missing ones stay missing; there they moved along.
    - Hue is a rotation in YIQ and saturation a factor there, so that all colours change in one
      linear map; there it was HSV, rounded in between.
    - What is outside the picture has the mean colour in the order of the picture's channels.
    - Every draw comes from the generator that is handed in; there workers shared one seed.

    Source: Deng et al., "RetinaFace", CVPR 2020, arXiv:1905.00641, section 4.2; the crops and
    colours of biubug6/Pytorch_Retinaface.
    """

    kind: Literal["retinaface"] = "retinaface"
    min_area_px: float = Field(default=0, ge=0)
    shares: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0)
    """Sides of the crops, as shares of the picture's shorter side."""

    tries: int = Field(default=250, gt=0)
    """Crops drawn, at most, in search of one that holds a face."""

    filters: Literal["any", "linear"] = "any"
    """How samples are resized: by any of five filters, or as YuNet was trained."""

    colour_share: float = Field(default=0.5, ge=0, le=1)
    """Probability of each of the four changes of colour; YuNet was trained without."""

    brightness: float = Field(default=32, ge=0, le=255)
    """Largest that is added or subtracted, of 255."""

    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue_degrees: float = Field(default=36, ge=0, le=180)

    def _window(
        self, shape: tuple[int, int], faces: Faces, rng: np.random.Generator, size_px: int
    ) -> Window:
        return self._crop(shape, faces.boxes, rng) or Window(0, 0, max(shape))

    def _crop(
        self, shape: tuple[int, int], boxes: Floats, rng: np.random.Generator
    ) -> Window | None:
        height, width = shape
        sides = min(shape) * rng.choice(self.shares, self.tries)
        room = np.stack([width - sides, height - sides], axis=1)
        corners = (rng.random((self.tries, 2)) * room)[:, None]
        covered = (corners <= boxes[:, :2]) & (boxes[:, 2:] <= corners + sides[:, None, None])
        valid = np.flatnonzero(covered.all(axis=-1).any(axis=-1))
        if not len(valid):
            return None
        x, y = corners[valid[0], 0]
        return Window(float(x), float(y), float(sides[valid[0]]))

    def _interpolation(self, rng: np.random.Generator) -> int:
        return cv2.INTER_LINEAR if self.filters == "linear" else super()._interpolation(rng)

    def _recolour(self, rng: np.random.Generator) -> Recolour | None:
        swings = _swings(self.colour_share, rng)
        if swings is None:
            return None
        # What they call contrast multiplies every channel, around no mean.
        return Recolour(
            shift=swings[0] * self.brightness,
            brightness=1 + swings[1] * self.contrast,
            saturation=1 + swings[2] * self.saturation,
            hue_degrees=swings[3] * self.hue_degrees,
        )


Augment = Annotated[S3fdAugment | RetinaFaceAugment | PlainAugment, Field(discriminator="kind")]


def _swings(share: float, rng: np.random.Generator) -> npt.NDArray[np.float64] | None:
    """Draw four numbers from -1 to 1, each 0 but for a ``share`` of draws; None if all are."""
    coins = rng.random(4) < share
    swings = coins * rng.uniform(-1, 1, 4)
    return swings if coins.any() else None


def _any_box(faces: Faces, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    box: npt.NDArray[np.float64] = faces.boxes[rng.integers(len(faces))].astype(np.float64)
    return box


def _window_around(
    box: npt.NDArray[np.float64], shape: tuple[int, int], side: float, rng: np.random.Generator
) -> Window:
    """Draw a window of ``side`` that holds a box, or lies in it."""
    x = _offset(box[0], box[2], shape[1], side, rng)
    y = _offset(box[1], box[3], shape[0], side, rng)
    return Window(x, y, side)


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
