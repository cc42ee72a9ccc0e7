"""What is behind and over the faces of a drawn scene: surfaces, clutter, light, noise."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Picture

Colour = npt.NDArray[np.float64]


def palette(rng: np.random.Generator, count: int = 6) -> npt.NDArray[np.float64]:
    """Return colours that go together, shape ``(count, 3)``: a few hues, muted or bright."""
    hue = rng.uniform(0, 180) + rng.choice([0, 0, 15, -15, 60, 90], count) + rng.normal(0, 4, count)
    saturation = np.clip(rng.normal(rng.uniform(30, 130), 35, count), 5, 220)
    value = np.clip(rng.normal(rng.uniform(90, 190), 50, count), 30, 245)
    hsv = np.stack([hue % 180, saturation, value], axis=1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], dtype=np.float64)


def clouds(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return soft noise of several octaves in about -1..1, shape ``(height, width)``."""
    # Soft enough to be made at a quarter of the size.
    small = (width // 4 + 1, height // 4 + 1)
    field = np.zeros(small[::-1], dtype=np.float32)
    for cells, weight in ((3, 0.5), (8, 0.3), (24, 0.2)):
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        field += np.float32(weight) * cv2.resize(grid, small, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(field, (width, height)), dtype=np.float32)


def backdrop(
    rng: np.random.Generator, height: int, width: int, colours: npt.NDArray[np.float64]
) -> Picture:
    """Paint a surface: a gradient with clouds, and on most of them a pattern."""
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    if rng.random() < 0.5:
        edge = rng.uniform(0.4, 0.8)
        share = np.clip((share - edge) * rng.uniform(3, 80) + 0.5, 0, 1)
    shade = share + 0.35 * clouds(rng, height, width)
    first, second = colours[:2].astype(np.float32)
    ramp = np.stack([second - first, first], axis=1)
    picture = _bytes(cv2.transform(np.clip(shade, 0, 1)[..., None], ramp))
    kind = rng.choice(["plain", "bricks", "windows", "foliage", "bokeh", "stripes", "grain"])
    if kind == "bricks":
        _bricks(picture, rng, colours)
    elif kind == "windows":
        _windows(picture, rng, colours)
    elif kind in ("foliage", "bokeh"):
        _spots(picture, rng, colours, soft=kind == "bokeh")
    elif kind == "stripes":
        _stripes(picture, rng, colours)
    elif kind == "grain":
        fine = rng.integers(0, 48, (height // 2 + 1, width // 2 + 1), dtype=np.uint8)
        fine = cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = cv2.addWeighted(picture, 1, cv2.merge([fine] * 3), 1, -24)
    return np.asarray(picture, dtype=np.uint8)


def _bytes(field: npt.ArrayLike) -> Picture:
    """Round to 8 bits; what is out of range stops at the end of it."""
    return np.asarray(cv2.addWeighted(field, 1, field, 0, 0, dtype=cv2.CV_8U), dtype=np.uint8)


def rgb(colour: Colour) -> list[float]:
    """Return a colour as OpenCV takes it, no channel out of range."""
    return [min(max(channel, 0.0), 255.0) for channel in colour.tolist()]


def _bricks(picture: Picture, rng: np.random.Generator, colours: npt.NDArray[np.float64]) -> None:
    height, width = picture.shape[:2]
    tall = int(rng.integers(8, 28))
    long = int(tall * rng.uniform(1, 2.6))
    joint = rgb(colours[2] * 0.8)
    for row, y in enumerate(range(0, height, tall)):
        cv2.line(picture, (0, y), (width, y), joint, 1)
        for x in range((row % 2) * long // 2, width, long):
            cv2.line(picture, (x, y), (x, min(y + tall, height)), joint, 1)


def _windows(picture: Picture, rng: np.random.Generator, colours: npt.NDArray[np.float64]) -> None:
    height, width = picture.shape[:2]
    left = 0
    while left < width:
        wide = int(rng.integers(width // 8, width // 3))
        top = int(rng.integers(0, height // 2))
        wall = colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.0)
        cv2.rectangle(picture, (left, top), (left + wide, height), rgb(wall), -1)
        cell = int(rng.integers(8, 26))
        for y in range(top + cell // 2, height, int(cell * 1.5)):
            for x in range(left + cell // 2, left + wide - cell, int(cell * 1.4)):
                lit = wall * (1.6 if rng.random() < 0.3 else 0.55)
                cv2.rectangle(picture, (x, y), (x + cell * 3 // 5, y + cell), rgb(lit), -1)
        left += wide


def _spots(
    picture: Picture, rng: np.random.Generator, colours: npt.NDArray[np.float64], *, soft: bool
) -> None:
    height, width = picture.shape[:2]
    layer = picture.copy()
    for _ in range(int(rng.integers(20, 60))):
        centre = int(rng.integers(width)), int(rng.integers(height))
        radius = int(rng.uniform(0.01, 0.07) * width) + 1
        colour = rgb(colours[rng.integers(2, len(colours))] * rng.uniform(0.7, 1.3))
        if soft:
            cv2.circle(layer, centre, radius, colour, -1, cv2.LINE_AA)
        else:
            axes = radius, max(1, radius // 2)
            cv2.ellipse(layer, centre, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    cv2.addWeighted(picture, 0.5 if soft else 0.2, layer, 0.5 if soft else 0.8, 0, dst=picture)
    if soft:
        cv2.GaussianBlur(picture, (0, 0), 0.008 * width + 0.5, dst=picture)


def _stripes(picture: Picture, rng: np.random.Generator, colours: npt.NDArray[np.float64]) -> None:
    height, width = picture.shape[:2]
    step = int(rng.integers(10, 60))
    slant = int(rng.integers(-height // 2, height // 2 + 1))
    layer = picture.copy()
    for x in range(-height, width + height, step):
        cv2.line(
            layer, (x, 0), (x + slant, height), rgb(colours[3]), max(1, step // 3), cv2.LINE_AA
        )
    cv2.addWeighted(picture, 0.55, layer, 0.45, 0, dst=picture)


def clutter(
    picture: Picture, rng: np.random.Generator, colours: npt.NDArray[np.float64], count: int
) -> None:
    """Paint things that are no faces, some of them round, skin-coloured or with two dots."""
    height, width = picture.shape[:2]
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(np.exp(rng.uniform(np.log(6), np.log(0.28 * width)))) + 1
        colour = colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.2)
        _THINGS[rng.integers(len(_THINGS))](picture, rng, x, y, size, colour)


def _board(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    other = size * rng.uniform(0.4, 1.6)
    corners = cv2.boxPoints(
        ((float(x), float(y)), (float(size), float(other)), rng.uniform(-20, 20))
    )
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], rgb(colour), cv2.LINE_AA)
    if rng.random() < 0.5:
        inner = corners * 0.8 + corners.mean(axis=0) * 0.2
        cv2.fillPoly(
            picture, [np.rint(inner).astype(np.int32)], rgb(255 - 0.5 * colour), cv2.LINE_AA
        )


def _ball(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    if rng.random() < 0.4:
        colour = np.array([225.0, 175, 135]) * rng.uniform(0.4, 1.05)
    radius = max(2, size // 2)
    axes = radius, int(radius * rng.uniform(0.8, 1.3))
    cv2.ellipse(picture, (x, y), axes, 0, 0, 360, rgb(colour), -1, cv2.LINE_AA)
    glow = x - radius // 3, y - radius // 3
    cv2.circle(picture, glow, max(1, radius // 3), rgb(colour * 1.2 + 15), -1, cv2.LINE_AA)
    if rng.random() < 0.4:
        cv2.ellipse(
            picture, (x, y), axes, 0, 20, 160, rgb(colour * 0.6), max(1, size // 12), cv2.LINE_AA
        )


def _leaf(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    green = np.array([70.0, 130, 60]) * rng.uniform(0.5, 1.3, 3)
    for angle in rng.uniform(0, 360, 5):
        end = x + size * np.cos(np.deg2rad(angle)) / 2, y + size * np.sin(np.deg2rad(angle)) / 2
        axes = max(1, size // 2), max(1, size // 7)
        centre = int(end[0]), int(end[1])
        cv2.ellipse(picture, centre, axes, float(angle), 0, 360, rgb(green), -1, cv2.LINE_AA)
        green = green * rng.uniform(0.85, 1.15)


def _pole(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    height = picture.shape[0]
    lean = int(rng.integers(-size, size + 1))
    cv2.line(
        picture, (x, 0), (x + lean, height), rgb(colour * 0.7), max(1, size // 10), cv2.LINE_AA
    )


def _wheel(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    radius = max(3, size // 2)
    cv2.circle(picture, (x, y), radius, rgb(colour * 0.35), -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y), radius * 3 // 5, rgb(colour * 1.2 + 20), -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y), max(1, radius // 6), rgb(colour * 0.3), -1, cv2.LINE_AA)


def _socket(
    picture: Picture, rng: np.random.Generator, x: int, y: int, size: int, colour: Colour
) -> None:
    """A plate with two dots, or four: as near to a face as a thing should get."""
    half = max(3, size // 3)
    cv2.rectangle(picture, (x - half, y - half), (x + half, y + half), rgb(colour * 1.1), -1)
    dot = max(1, half // 6)
    rows = (0,) if rng.random() < 0.5 else (-half // 3, half // 3)
    for dy in rows:
        for dx in (-half // 3, half // 3):
            cv2.circle(picture, (x + dx, y + dy), dot, rgb(colour * 0.2), -1, cv2.LINE_AA)


_THINGS = (_board, _board, _ball, _ball, _leaf, _pole, _wheel, _socket)


def cover(
    picture: Picture, box: Floats, rng: np.random.Generator, colours: npt.NDArray[np.float64]
) -> None:
    """Hide a quarter to a third of a face behind something that comes from one side."""
    x1, y1, x2, y2 = box.astype(float)
    width, height = x2 - x1, y2 - y1
    share = rng.uniform(0.22, 0.36)
    side = rng.integers(3)
    centre = [
        (x1 - width * (0.6 - share), (y1 + y2) / 2),
        (x2 + width * (0.6 - share), (y1 + y2) / 2),
        ((x1 + x2) / 2, y2 + height * (0.7 - share)),
    ][side]
    size = (1.2 * width, 1.3 * height) if side < 2 else (1.3 * width, 1.4 * height)
    corners = cv2.boxPoints((centre, size, rng.uniform(-12, 12)))
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.5, 1.1)
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], rgb(colour), cv2.LINE_AA)


@lru_cache(maxsize=4)
def _noise(height: int, width: int) -> npt.NDArray[np.float32]:
    """White noise, made once: fresh noise for every scene would cost more than the scene."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((height + _NOISE_SHIFTS, width + _NOISE_SHIFTS, 3), np.float32)


_NOISE_SHIFTS = 64


def finish(picture: Picture, rng: np.random.Generator) -> Picture:
    """Put the scene a little out of focus, light it, and add the noise of a sensor."""
    height, width = picture.shape[:2]
    blur = rng.uniform(0.3, 1.1) if rng.random() < 0.3 else 0
    sigma = rng.uniform(0, 7) if rng.random() < 0.7 else 0
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    level, fall = rng.uniform(0.75, 1.12), rng.uniform(0, 0.14)
    warmth = rng.uniform(-0.07, 0.07)
    row, column = rng.integers(0, _NOISE_SHIFTS, 2)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope_x, slope_y = np.float32(tilt * np.cos(angle)), np.float32(tilt * np.sin(angle))
    light = (np.float32(level) + slope_x * x - np.float32(fall) * x * x) + (
        slope_y * y - np.float32(fall) * y * y
    )
    if blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), dtype=np.uint8)
    gain = cv2.merge([light * np.float32(1 + warmth), light, light * np.float32(1 - warmth)])
    lit = cv2.multiply(picture, gain, dtype=cv2.CV_32F)
    noise = _noise(height, width)[row : row + height, column : column + width]
    return np.asarray(cv2.addWeighted(lit, 1, noise, sigma, 0, dtype=cv2.CV_8U), dtype=np.uint8)
