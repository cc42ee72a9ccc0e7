"""One drawn person: a parametric head with its exact outline and landmarks, and shoulders.

Shapes are polygons in face units: ``u`` from -1 to 1 across the oval of the face and ``v`` from -1
(top) to 1 (chin), so that a face of any size, place and tilt is one affine map away.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Picture

Points = npt.NDArray[np.float64]
Colour = npt.NDArray[np.float64]

_SUBPIXEL_BITS = 4
_DETAIL_PX = 20
"""Smaller faces have no pupils, lashes or lips that one could see."""

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

_LANDMARKS = np.array([(-0.42, -0.1), (0.42, -0.1), (0, 0.28), (-0.32, 0.56), (0.32, 0.56)])


def _turned(count: int) -> tuple[Points, Points]:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.cos(angle), np.sin(angle)


_COS, _SIN = _turned(48)
_CIRCLE = np.stack([_COS, _SIN], axis=1)
# An egg: the chin is narrower than the brow; its extremes are exactly -1 and 1 in both directions.
_OVAL = np.stack([_COS * (1 - 0.13 * np.where(_SIN > 0, _SIN, 0) ** 2), _SIN], axis=1)


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

    def place(self, points: Points, *, upright: bool = False) -> Points:
        """Map points of the face to pixels, shape ``(n, 2)``; ``upright`` leaves the tilt out."""
        scaled = points * (self.width_px / 2, self.height_px / 2)
        if not upright:
            cos, sin = np.cos(self.tilt), np.sin(self.tilt)
            scaled = scaled @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(scaled + (self.x, self.y))

    def box(self) -> Floats:
        """Return the smallest box around the oval, rounded to whole pixels: x1 y1 x2 y2."""
        outline = self.place(_OVAL)
        corners = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
        return np.rint(corners).astype(np.float32)

    def landmarks(self) -> Floats:
        """Return the five points, shape ``(5, 2)``."""
        return self.place(_LANDMARKS + self._shift(_LANDMARKS)).astype(np.float32)

    def _shift(self, points: Points) -> Points:
        # The nose stands out, so it moves further than what lies flat.
        depth = 1 + 0.6 * np.exp(-((points - (0, 0.25)) ** 2).sum(axis=1, keepdims=True) / 0.06)
        return np.asarray(depth * (self.yaw, 0.0))

    def features(self, points: Points) -> Points:
        """Map points of the face's surface, which turn with the head."""
        return self.place(points + self._shift(points))


class _Brush:
    """Paints polygons with soft edges at subpixel places."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    def fill(self, points: Points, colour: Colour) -> None:
        fixed = np.rint((points - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(self.picture, [fixed], _bgr(colour), cv2.LINE_AA, _SUBPIXEL_BITS)

    def line(self, points: Points, colour: Colour, width: float, *, closed: bool = False) -> None:
        fixed = np.rint((points - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        thickness = max(1, round(width))
        cv2.polylines(
            self.picture, [fixed], closed, _bgr(colour), thickness, cv2.LINE_AA, _SUBPIXEL_BITS
        )


def _bgr(colour: Colour) -> list[float]:
    return [float(c) for c in np.clip(colour, 0, 255)]


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return np.asarray(_CIRCLE * (rx, ry) + (x, y))


def draw_shoulders(picture: Picture, pose: Pose, rng: np.random.Generator, cloth: Colour) -> None:
    """Paint neck and clothes below a face."""
    brush = _Brush(picture)
    wide = rng.uniform(1.9, 2.5)
    torso = [(-0.5, 1.18), (-1.2, 1.45), (-wide, 1.75), (-wide * 1.1, 3), (-wide * 1.05, 8)]
    outline = np.array(torso + [(-u, v) for u, v in reversed(torso)])
    brush.fill(pose.place(outline, upright=True), cloth)
    collar = cloth * rng.uniform(0.55, 0.8) if rng.random() < 0.6 else 255 - 0.2 * cloth
    if rng.random() < 0.5:
        lapels = np.array([(-0.62, 1.2), (0.62, 1.2), (0.05, 2.6), (-0.05, 2.6)])
        brush.fill(pose.place(lapels, upright=True), collar)


def draw_head(picture: Picture, pose: Pose, rng: np.random.Generator) -> None:
    """Paint neck, head and hair of a person in place."""
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = int(tone)
    skin = _SKINS[low] + (tone - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    skin = np.clip(skin * rng.uniform(0.92, 1.06) + rng.uniform(-5, 5, 3), 0, 255)
    hair = _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.8, 1.15)
    style = rng.choice(["short", "short", "long", "long", "curls", "bald", "cap", "bun"])
    brush = _Brush(picture)

    neck = np.array([(-0.42, 0.5), (0.42, 0.5), (0.5, 1.3), (0.0, 1.62), (-0.5, 1.3)])
    _hair_behind(brush, pose, hair, style)
    brush.fill(pose.place(neck, upright=True), skin * 0.78)
    for side in (-1, 1):
        brush.fill(pose.place(_ellipse(side * 0.99, 0.08, 0.13, 0.2)), skin * 0.86)
    brush.fill(pose.place(_OVAL), skin)
    _features(brush, pose, skin, hair, rng)
    _shade(picture, pose, rng)
    _hair_before(brush, pose, hair, style, rng)
    if rng.random() < 0.22:
        _glasses(brush, pose, rng)


def _hair_behind(brush: _Brush, pose: Pose, hair: Colour, style: str) -> None:
    if style == "long":
        mane = np.array(
            [(-0.95, -0.9), (0, -1.24), (0.95, -0.9), (1.26, 0), (1.34, 1.35), (0.6, 1.5),
             (-0.6, 1.5), (-1.34, 1.35), (-1.26, 0)]
        )  # fmt: skip
        brush.fill(pose.place(_rounded(mane)), hair * 0.8)
    elif style == "curls":
        for u, v in _CIRCLE[::4] * (1.0, 0.85) + (0, -0.4):
            brush.fill(pose.place(_ellipse(u, v, 0.46, 0.36)), hair * 0.85)
    elif style == "bun":
        brush.fill(pose.place(_ellipse(0, -1.3, 0.42, 0.3)), hair * 0.85)


def _rounded(points: Points) -> Points:
    """Cut the corners of a closed polygon twice (Chaikin)."""
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack(
            [0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1
        ).reshape(-1, 2)
    return points


def _hair_before(
    brush: _Brush, pose: Pose, hair: Colour, style: str, rng: np.random.Generator
) -> None:
    if style == "bald":
        return
    line = rng.uniform(-0.72, -0.5)
    part = rng.uniform(-0.6, 0.6)
    top = -1.1 if style != "cap" else -1.16
    crown = [(np.cos(a) * 1.07, top * np.sin(a) * 1.0) for a in np.linspace(0, np.pi, 17)]
    crown = [(u, v - 0.12 * (abs(u) > 0.9)) for u, v in crown]
    if style == "cap":
        brush.fill(pose.place(np.array([*crown, (-1.08, -0.45), (1.08, -0.45)])), hair)
        peak = np.array([(-1.1, -0.52), (1.1, -0.52), (1.25, -0.36), (0, -0.26), (-1.25, -0.36)])
        brush.fill(pose.place(_rounded(peak)), hair * 0.7)
        return
    fringe = [
        (-1.02, -0.1),
        (-0.9, line + 0.1),
        (part, line - 0.16),
        (0.9, line + 0.1),
        (1.02, -0.1),
    ]
    brush.fill(pose.place(np.array(crown + fringe)), hair)
    if pose.height_px > _DETAIL_PX:
        shine = np.array([(-0.6, -0.95), (0, -1.02), (0.5, -0.97), (0.1, -0.93)])
        brush.fill(pose.place(shine), np.minimum(hair * 1.35 + 12, 255))


def _features(
    brush: _Brush, pose: Pose, skin: Colour, hair: Colour, rng: np.random.Generator
) -> None:
    detail = pose.height_px > _DETAIL_PX
    blush = skin * (1.02, 0.86, 0.84)
    shadow = skin * (0.8, 0.74, 0.72)
    mood = rng.uniform(-0.05, 0.14)
    open_mouth = rng.random() < 0.35
    beard = rng.random() < 0.22
    iris = _IRISES[rng.integers(len(_IRISES))]
    if beard:
        full = np.array(
            [(-0.93, 0.2), (-0.7, 0.45), (-0.36, 0.4), (0, 0.42), (0.36, 0.4), (0.7, 0.45),
             (0.93, 0.2), (0.8, 0.62), (0.5, 0.88), (0, 0.99), (-0.5, 0.88), (-0.8, 0.62)]
        )  # fmt: skip
        brush.fill(pose.place(full), 0.75 * hair + 0.25 * skin)
    elif detail:
        for side in (-1, 1):
            brush.fill(
                pose.features(_ellipse(side * 0.52, 0.3, 0.2, 0.13)), 0.5 * blush + 0.5 * skin
            )
    for side in (-1, 1):
        _eye(brush, pose, side * 0.42, skin, iris, shadow, detail=detail)
        raised = rng.uniform(-0.03, 0.04)
        brow = np.array(
            [(0.2, -0.33), (0.42, -0.41 - raised), (0.66, -0.32), (0.42, -0.34 - raised)]
        ) * (side, 1)
        brush.fill(pose.features(brow), 0.8 * hair + 0.2 * skin * 0.6)
    nose = np.array([(-0.05, -0.1), (0.05, -0.1), (0.17, 0.31), (0, 0.38), (-0.17, 0.31)])
    brush.fill(pose.features(nose), 0.55 * skin + 0.45 * shadow)
    if detail:
        bridge = np.array([(-0.03, -0.1), (0.03, -0.1), (0.06, 0.26), (-0.06, 0.26)])
        brush.fill(pose.features(bridge), np.minimum(skin * 1.05, 255))
        for side in (-1, 1):
            brush.fill(pose.features(_ellipse(side * 0.085, 0.325, 0.04, 0.025)), shadow * 0.6)
    _mouth(brush, pose, skin, mood, open_mouth=open_mouth, detail=detail)


def _eye(
    brush: _Brush, pose: Pose, u: float, skin: Colour, iris: Colour, shadow: Colour, *, detail: bool
) -> None:
    v = -0.1
    brush.fill(pose.features(_ellipse(u, v - 0.03, 0.25, 0.14)), 0.5 * skin + 0.5 * shadow)
    if not detail:
        brush.fill(pose.features(_ellipse(u, v, 0.15, 0.085)), iris * 0.45)
        return
    lens = np.stack([_COS * 0.19, np.sign(_SIN) * np.abs(_SIN) ** 1.3 * 0.085], axis=1) + (u, v)
    brush.fill(pose.features(lens), np.array([246.0, 244, 240]))
    brush.fill(pose.features(_ellipse(u, v, 0.088, 0.08)), iris)
    brush.fill(pose.features(_ellipse(u, v, 0.045, 0.042)), np.array([14.0, 12, 12]))
    brush.fill(pose.features(_ellipse(u - 0.03, v - 0.03, 0.02, 0.018)), np.array([255.0] * 3))
    upper = lens[_SIN <= 0.01]
    brush.line(pose.features(upper), shadow * 0.35, pose.height_px * 0.012)


def _mouth(
    brush: _Brush, pose: Pose, skin: Colour, mood: float, *, open_mouth: bool, detail: bool
) -> None:
    lips = skin * (0.86, 0.56, 0.56)
    across = np.linspace(-0.32, 0.32, 9)
    bend = mood * (1 - (across / 0.32) ** 2)
    upper = np.stack([across, 0.56 + bend - 0.05 * np.cos(across * 4.9)], axis=1)
    drop = (0.16 if open_mouth else 0.085) * (1 - (across / 0.32) ** 2)
    lower = np.stack([across, 0.56 + bend + drop], axis=1)
    brush.fill(pose.features(np.concatenate([upper, lower[::-1]])), lips)
    if not detail:
        return
    middle = np.stack([across, 0.56 + bend], axis=1)
    if open_mouth:
        inner = middle + np.stack([0 * across, 0.72 * drop], axis=1)
        brush.fill(pose.features(np.concatenate([middle, inner[::-1]]) * (0.94, 1)), lips * 0.3)
        teeth = middle + np.stack([0 * across, 0.34 * drop], axis=1)
        brush.fill(
            pose.features(np.concatenate([middle, teeth[::-1]]) * (0.85, 1)),
            np.array([244.0, 240, 232]),
        )
    else:
        brush.line(pose.features(middle), lips * 0.55, pose.height_px * 0.009)


def _glasses(brush: _Brush, pose: Pose, rng: np.random.Generator) -> None:
    frame = rng.choice([20.0, 60.0, 150.0]) * rng.uniform(0.6, 1.3, 3)
    width = pose.height_px * 0.022
    dark = rng.random() < 0.4
    for side in (-1, 1):
        glass = _ellipse(side * 0.43, -0.07, 0.32, 0.21)
        if dark:
            brush.fill(pose.features(glass), frame * 0.4)
        brush.line(pose.features(glass), frame, width, closed=True)
    bridge = np.array([(-0.11, -0.1), (0, -0.14), (0.11, -0.1)])
    brush.line(pose.features(bridge), frame, width)


def _shade(picture: Picture, pose: Pose, rng: np.random.Generator) -> None:
    """Light the head from one side and darken its rim, as on an ellipsoid."""
    reach = 0.62 * max(pose.height_px, pose.width_px)
    height, width = picture.shape[:2]
    x1, x2 = max(0, int(pose.x - reach)), min(width, int(pose.x + reach) + 1)
    y1, y2 = max(0, int(pose.y - reach)), min(height, int(pose.y + reach) + 1)
    angle = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.06, 0.26)
    if x1 >= x2 or y1 >= y2:
        return
    x = (np.arange(x1, x2, dtype=np.float32) + 0.5 - np.float32(pose.x))[None, :]
    y = (np.arange(y1, y2, dtype=np.float32) + 0.5 - np.float32(pose.y))[:, None]
    cos, sin = np.float32(np.cos(pose.tilt)), np.float32(np.sin(pose.tilt))
    u = (cos * x + sin * y) * np.float32(2 / pose.width_px)
    v = (cos * y - sin * x) * np.float32(2 / pose.height_px)
    radius = u * u + v * v
    lit = np.float32(strength * np.cos(angle)) * u + np.float32(strength * np.sin(angle)) * v
    gain = 1.04 + lit - np.float32(0.2) * radius * radius
    weight = np.clip((np.float32(1.06) - radius) * 6, 0, 1)
    gain = 1 + (gain - 1) * weight
    region = picture[y1:y2, x1:x2]
    soft = (
        cv2.GaussianBlur(region, (0, 0), pose.height_px * 0.008) if pose.height_px > 50 else region
    )
    np.copyto(region, np.clip(soft * gain[..., None], 0, 255).astype(np.uint8))
