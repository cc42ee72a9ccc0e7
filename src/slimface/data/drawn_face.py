"""One drawn person: a parametric head with its exact outline and landmarks, and shoulders.

Shapes are polygons in face units: ``u`` from -1 to 1 across the oval of the face and ``v`` from -1
(top) to 1 (chin), so that a face of any size, place and tilt is one affine map away.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats
from slimface.data.drawn_backdrop import Colour, rgb
from slimface.deploy.pipeline import Picture

Points = npt.NDArray[np.float64]

_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS
_NOSE_DEPTH = 1.6
_DETAIL_PX = 20
"""Smaller faces have no pupils, lashes or teeth that one could see."""

_SOFT_PX = 50
"""Larger faces would look cut out of paper."""

_SKINS = np.array(
    [
        (255, 224, 196), (246, 208, 177), (238, 194, 158), (228, 178, 137), (214, 158, 116),
        (198, 138, 96), (172, 112, 74), (143, 88, 57), (112, 68, 45), (82, 50, 36),
    ],
    dtype=np.float64,
)  # fmt: skip
_HAIRS = np.array(
    [
        (24, 20, 22), (38, 28, 24), (62, 42, 30), (92, 60, 38), (128, 86, 48), (176, 132, 78),
        (216, 184, 120), (150, 66, 34), (168, 164, 160), (226, 224, 220),
    ],
    dtype=np.float64,
)  # fmt: skip
_IRISES = np.array(
    [(70, 44, 26), (98, 66, 36), (84, 104, 70), (80, 116, 150), (96, 110, 118)], dtype=np.float64
)

_EYE_WHITE = np.array([246.0, 243, 238])
_STYLES = ("short", "short", "long", "long", "curls", "bald", "cap", "bun")

_EYE_LINE, _MOUTH_LINE = -0.1, 0.56
_LANDMARKS = np.array(
    [(-0.42, _EYE_LINE), (0.42, _EYE_LINE), (0, 0.28), (-0.32, _MOUTH_LINE), (0.32, _MOUTH_LINE)]
)
_ROUNDING = 1e-9


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return np.asarray(_CIRCLE * (rx, ry) + (x, y))


def _rounded(points: Points) -> Points:
    """Cut the corners of a closed polygon twice (Chaikin)."""
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        pair = [0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following]
        points = np.stack(pair, axis=1).reshape(-1, 2)
    return points


_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
_CIRCLE = np.stack([_COS, _SIN], axis=1)
# An egg: the chin is narrower than the brow; its extremes are exactly -1 and 1 in both directions.
_OVAL = np.stack([_COS * (1 - 0.13 * np.where(_SIN > 0, _SIN, 0) ** 2), _SIN], axis=1)
# Pointed in the corners, as an eye is.
_LENS = np.stack([0.19 * _COS, 0.085 * np.sign(_SIN) * np.abs(_SIN) ** 1.3], axis=1)
_ARC = np.linspace(0, np.pi, 17)
_CROWN = np.stack([1.07 * np.cos(_ARC), -1.1 * np.sin(_ARC)], axis=1)
_MANE = _rounded(
    np.array(
        [(-0.95, -0.9), (0, -1.24), (0.95, -0.9), (1.26, 0), (1.34, 1.35), (0.6, 1.5),
         (-0.6, 1.5), (-1.34, 1.35), (-1.26, 0)]
    )
)  # fmt: skip
_PEAK = _rounded(np.array([(-1.1, -0.52), (1.1, -0.52), (1.25, -0.36), (0, -0.26), (-1.25, -0.36)]))
_BEARD = np.array(
    [(-0.93, 0.2), (-0.7, 0.45), (-0.36, 0.4), (0, 0.42), (0.36, 0.4), (0.7, 0.45),
     (0.93, 0.2), (0.8, 0.62), (0.5, 0.88), (0, 0.99), (-0.5, 0.88), (-0.8, 0.62)]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a face is in the picture."""

    x: float
    y: float
    height_px: float
    """Height of the oval before it is tilted."""

    width_px: float
    tilt: float
    """Radians, clockwise in the picture."""

    yaw: float
    """How far the features are turned to one side: -0.3 to 0.3 of half the width."""

    def place(self, points: Points) -> Points:
        """Map points of the face to pixels, shape ``(n, 2)``."""
        return np.asarray(points @ self.linear(self.tilt) + (self.x, self.y))

    def linear(self, tilt: float) -> Points:
        """Return the 2 x 2 matrix from face units to pixels, for row vectors."""
        cos, sin = np.cos(tilt), np.sin(tilt)
        across, down = self.width_px / 2, self.height_px / 2
        return np.array([[across * cos, across * sin], [-down * sin, down * cos]])

    def box(self) -> Floats:
        """Return the smallest box around the oval, rounded to whole pixels: x1 y1 x2 y2."""
        outline = self.place(_OVAL)
        (x1, y1), (x2, y2) = outline.min(axis=0), outline.max(axis=0)
        return np.asarray(np.rint((x1, y1, x2, y2)), dtype=np.float32)

    def landmarks(self) -> Floats:
        """Return the five points, shape ``(5, 2)``."""
        points = _LANDMARKS.copy()
        points[:, 0] += self.yaw * np.array([1, 1, _NOSE_DEPTH, 1, 1])
        return self.place(points).astype(np.float32)


class _Brush:
    """Paints polygons given in face units, with soft edges at subpixel places.

    ``depth`` moves a shape sideways with the yaw: 0 for the outline of the head, 1 for what lies
    on the face, more for what stands out.
    """

    def __init__(self, picture: Picture, pose: Pose, *, upright: bool = False) -> None:
        self.picture = picture
        self.yaw = pose.yaw
        self.height_px = pose.height_px
        self.matrix = pose.linear(0.0 if upright else pose.tilt) * _SUBPIXELS
        # fillPoly counts from the centre of the first pixel, boxes from its corner.
        self.origin = (np.array([pose.x, pose.y]) - 0.5) * _SUBPIXELS

    def fill(self, points: Points, colour: Colour, *, depth: float = 0) -> None:
        cv2.fillPoly(
            self.picture, [self._fixed(points, depth)], rgb(colour), cv2.LINE_AA, _SUBPIXEL_BITS
        )

    def line(
        self,
        points: Points,
        colour: Colour,
        width: float,
        *,
        depth: float = 0,
        closed: bool = False,
    ) -> None:
        """Paint a line ``width`` times as wide as the face is high."""
        thickness = max(1, round(width * self.height_px))
        cv2.polylines(
            self.picture,
            [self._fixed(points, depth)],
            closed,
            rgb(colour),
            thickness,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )

    def _fixed(self, points: Points, depth: float) -> npt.NDArray[np.int32]:
        moved = points @ self.matrix + (self.origin + depth * self.yaw * self.matrix[0])
        return np.asarray(np.rint(moved), dtype=np.int32)


def draw_body(picture: Picture, pose: Pose, rng: np.random.Generator, cloth: Colour) -> None:
    """Paint a standing body below a face, as far as the picture reaches."""
    brush = _Brush(picture, pose, upright=True)
    wide = rng.uniform(1.9, 2.4)
    trousers = cloth[::-1] * rng.uniform(0.3, 0.7)
    collar = cloth * rng.uniform(0.55, 0.8) if rng.random() < 0.6 else 255 - 0.2 * cloth
    for side in (-1, 1):
        leg = np.array([(0.08, 5), (1.15, 5), (0.95, 12), (0.35, 12)]) * (side, 1)
        brush.fill(leg, trousers * (1 if side > 0 else 0.88))
        shoe = np.array([(0.3, 11.8), (0.95, 11.8), (1.25, 12.3), (0.3, 12.3)]) * (side, 1)
        brush.fill(shoe, trousers * 0.35)
        arm = np.array([(1, 1.6), (wide, 1.8), (wide * 1.12, 6.2), (wide * 0.86, 6.2)])
        brush.fill(arm * (side, 1), cloth * 0.82)
    trunk = [(-0.5, 1.18), (-1.2, 1.45), (-wide, 1.75), (-wide * 0.9, 3), (-wide * 0.72, 6)]
    brush.fill(np.array([*trunk, *((-u, v) for u, v in reversed(trunk))]), cloth)
    if rng.random() < 0.5:
        brush.fill(np.array([(-0.62, 1.2), (0.62, 1.2), (0.05, 2.6), (-0.05, 2.6)]), collar)


def draw_head(picture: Picture, pose: Pose, rng: np.random.Generator) -> None:
    """Paint neck, head and hair of a person in place."""
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = int(tone)
    skin = _SKINS[low] + (tone - low) * (_SKINS[low + 1] - _SKINS[low])
    skin = np.clip(skin * rng.uniform(0.92, 1.06) + rng.uniform(-5, 5, 3), 0, 255)
    hair = _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.8, 1.15)
    style = str(rng.choice(_STYLES))
    brush = _Brush(picture, pose)

    _hair_behind(brush, hair, style)
    neck = np.array([(-0.42, 0.5), (0.42, 0.5), (0.5, 1.3), (0.0, 1.62), (-0.5, 1.3)])
    _Brush(picture, pose, upright=True).fill(neck, skin * 0.78)
    for side in (-1, 1):
        brush.fill(_ellipse(side * 0.99, 0.08, 0.13, 0.2), skin * 0.86)
    brush.fill(_OVAL, skin)
    _features(brush, skin, hair, rng)
    _shade(picture, pose, rng)
    _hair_before(brush, hair, style, rng)
    if rng.random() < 0.22:
        _glasses(brush, rng)


def _hair_behind(brush: _Brush, hair: Colour, style: str) -> None:
    if style == "long":
        brush.fill(_MANE, hair * 0.8)
    elif style == "curls":
        for u, v in _CIRCLE[::4] * (1.0, 0.85) + (0, -0.4):
            brush.fill(_ellipse(u, v, 0.46, 0.36), hair * 0.85)
    elif style == "bun":
        brush.fill(_ellipse(0, -1.3, 0.42, 0.3), hair * 0.85)


def _hair_before(brush: _Brush, hair: Colour, style: str, rng: np.random.Generator) -> None:
    line = rng.uniform(-0.72, -0.5)
    part = rng.uniform(-0.6, 0.6)
    if style == "bald":
        return
    if style == "cap":
        brush.fill(np.concatenate([_CROWN * (1, 1.06), [(-1.08, -0.45), (1.08, -0.45)]]), hair)
        brush.fill(_PEAK, hair * 0.7)
        return
    temples = [(-1.02, -0.1), (-0.9, line + 0.1), (part, line - 0.16), (0.9, line + 0.1)]
    brush.fill(np.concatenate([_CROWN, temples, [(1.02, -0.1)]]), hair)
    if brush.height_px > _DETAIL_PX:
        shine = np.array([(-0.6, -0.95), (0, -1.02), (0.5, -0.97), (0.1, -0.93)])
        brush.fill(shine, hair * 1.25 + 8)


def _features(brush: _Brush, skin: Colour, hair: Colour, rng: np.random.Generator) -> None:
    detail = brush.height_px > _DETAIL_PX
    shadow = skin * (0.8, 0.74, 0.72)
    iris = _IRISES[rng.integers(len(_IRISES))]
    raised = rng.uniform(-0.03, 0.04, 2)
    mood = rng.uniform(-0.05, 0.14)
    bearded, opened = rng.random(2) < (0.22, 0.35)
    if bearded:
        brush.fill(_BEARD, 0.75 * hair + 0.25 * skin)
    for side, lift in zip((-1, 1), raised, strict=True):
        if detail and not bearded:
            brush.fill(_ellipse(side * 0.52, 0.3, 0.2, 0.13), skin * (1.01, 0.93, 0.92), depth=1)
        _eye(brush, side * 0.42, skin, iris, shadow, detail=detail)
        brow = np.array([(0.2, -0.33), (0.42, -0.41 - lift), (0.66, -0.32), (0.42, -0.34 - lift)])
        brush.fill(brow * (side, 1), 0.8 * hair + 0.12 * skin, depth=1)
    _nose(brush, skin, shadow, detail=detail)
    _mouth(brush, skin, mood, opened=bool(opened), detail=detail)


def _eye(
    brush: _Brush, u: float, skin: Colour, iris: Colour, shadow: Colour, *, detail: bool
) -> None:
    v = _EYE_LINE
    brush.fill(_ellipse(u, v - 0.03, 0.25, 0.14), 0.5 * skin + 0.5 * shadow, depth=1)
    if not detail:
        brush.fill(_ellipse(u, v, 0.15, 0.085), iris * 0.45, depth=1)
        return
    lens = _LENS + np.array([u, v])
    brush.fill(lens, _EYE_WHITE, depth=1)
    brush.fill(_ellipse(u, v, 0.088, 0.08), iris, depth=1)
    brush.fill(_ellipse(u, v, 0.045, 0.042), iris * 0.15, depth=1)
    brush.fill(_ellipse(u - 0.03, v - 0.03, 0.02, 0.018), _EYE_WHITE, depth=1)
    brush.line(lens[_SIN <= _ROUNDING], shadow * 0.35, 0.012, depth=1)


def _nose(brush: _Brush, skin: Colour, shadow: Colour, *, detail: bool) -> None:
    side = np.array([(-0.05, -0.1), (0.05, -0.1), (0.17, 0.31), (0, 0.38), (-0.17, 0.31)])
    brush.fill(side, 0.55 * skin + 0.45 * shadow, depth=_NOSE_DEPTH)
    if detail:
        bridge = np.array([(-0.03, -0.1), (0.03, -0.1), (0.06, 0.26), (-0.06, 0.26)])
        brush.fill(bridge, skin * 1.05, depth=_NOSE_DEPTH)
        for u in (-0.085, 0.085):
            brush.fill(_ellipse(u, 0.325, 0.04, 0.025), shadow * 0.6, depth=_NOSE_DEPTH)


def _mouth(brush: _Brush, skin: Colour, mood: float, *, opened: bool, detail: bool) -> None:
    lips = skin * (0.86, 0.56, 0.56)
    across = np.linspace(-0.32, 0.32, 9)
    arch = 1 - (across / 0.32) ** 2
    drop = (0.16 if opened else 0.085) * arch
    middle = np.stack([across, _MOUTH_LINE + mood * arch], axis=1)
    upper = middle - np.stack([0 * across, 0.05 * np.cos(across * 4.9)], axis=1)
    lower = middle + np.stack([0 * across, drop], axis=1)
    brush.fill(np.concatenate([upper, lower[::-1]]), lips, depth=1)
    if detail and opened:
        for share, shrink, colour in ((0.72, 0.94, lips * 0.3), (0.34, 0.85, _EYE_WHITE)):
            edge = middle + np.stack([0 * across, share * drop], axis=1)
            brush.fill(np.concatenate([middle, edge[::-1]]) * (shrink, 1), colour, depth=1)
    elif detail:
        brush.line(middle, lips * 0.55, 0.009, depth=1)


def _glasses(brush: _Brush, rng: np.random.Generator) -> None:
    frame = rng.choice([20.0, 60.0, 150.0]) * rng.uniform(0.6, 1.3, 3)
    dark = rng.random() < 0.4
    for side in (-1, 1):
        glass = _ellipse(side * 0.43, _EYE_LINE + 0.03, 0.32, 0.21)
        if dark:
            brush.fill(glass, frame * 0.4, depth=1)
        brush.line(glass, frame, 0.022, depth=1, closed=True)
    brush.line(np.array([(-0.11, -0.1), (0, -0.14), (0.11, -0.1)]), frame, 0.022, depth=1)


def _shade(picture: Picture, pose: Pose, rng: np.random.Generator) -> None:
    """Light the face from one side, darken its rim as on an ellipsoid, and soften large ones."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.26)
    reach = 0.62 * max(pose.height_px, pose.width_px)
    height, width = picture.shape[:2]
    x1, x2 = max(0, int(pose.x - reach)), min(width, int(pose.x + reach) + 1)
    y1, y2 = max(0, int(pose.y - reach)), min(height, int(pose.y + reach) + 1)
    if x1 >= x2 or y1 >= y2:
        return
    inverse = np.linalg.inv(pose.linear(pose.tilt)).astype(np.float32)
    x = (np.arange(x1, x2, dtype=np.float32) + np.float32(0.5 - pose.x))[None, :]
    y = (np.arange(y1, y2, dtype=np.float32) + np.float32(0.5 - pose.y))[:, None]
    u = x * inverse[0, 0] + y * inverse[1, 0]
    v = x * inverse[0, 1] + y * inverse[1, 1]
    radius = u * u + v * v
    weight = np.clip((np.float32(1.06) - radius) * 6, 0, 1)
    lit = np.float32(strength * np.cos(angle)) * u + np.float32(strength * np.sin(angle)) * v
    gain = 1 + (np.float32(0.04) + lit - np.float32(0.2) * radius * radius) * weight
    region = picture[y1:y2, x1:x2]
    soft = region.astype(np.float32)
    if pose.height_px > _SOFT_PX:
        blurred = cv2.GaussianBlur(soft, (0, 0), pose.height_px * 0.008)
        soft += (blurred - soft) * weight[..., None]
    np.copyto(region, np.clip(soft * gain[..., None], 0, 255), casting="unsafe")
