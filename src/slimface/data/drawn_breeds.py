"""Drawn breeds: heads of animals that differ as breeds do, in shape more than in colour.

Ears, snout, head and coat of an individual lie around those of its breed, and the breeds overlap,
so that no classifier is right about all of them. Everything is drawn from the seed.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

import slimface
from slimface.data.folders import SPLITS, ClassFolders, ClassSource
from slimface.data.labelled import LabelledSet, LabelledSplit
from slimface.deploy.media import Picture

_NAMES = (
    *("Arrow", "Bramble", "Cinder", "Dapple", "Ember", "Fennel", "Gorse", "Hazel"),
    *("Iris", "Juniper", "Kelp", "Larch", "Maple", "Nettle", "Oak", "Poppy"),
)
_SPREAD = 0.16
"""Standard deviation of an individual around its breed, in shares of each range."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """What a breed has of its own, each from 0 to 1."""

    ear_length: float
    ear_width: float
    ear_droop: float
    snout: float
    head: float
    eyes: float
    patches: float
    coat: float

    @classmethod
    def of(cls, values: np.ndarray) -> "_Looks":
        return cls(*(float(value) for value in np.clip(values, 0, 1)))


class DrawnBreeds(ClassSource):
    """Drawn heads of several breeds, written once to the cache."""

    kind: Literal["drawn_breeds"] = "drawn_breeds"
    classes: int = Field(default=8, ge=2, le=len(_NAMES))
    train: int = Field(default=100, gt=0)
    """Pictures of each breed to learn from."""

    val: int = Field(default=20, gt=0)
    """To make decisions by."""

    test: int = Field(default=40, gt=0)
    """To report."""

    size_px: int = Field(default=64, ge=32)
    seed: int = 0

    def labelled(self, split: LabelledSplit) -> LabelledSet:
        """Read a split; draw all first unless that has been done."""
        home = Path(os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface")
        # With the version, since a newer one may draw otherwise.
        root = home / "drawn" / f"{slimface.__version__}-{self.fingerprint()[:16]}"
        if not (root / ".drawn").exists():
            self._draw(root)
        return replace(ClassFolders(root=str(root)).labelled(split), name=f"drawn breeds {split}")

    def _draw(self, root: Path) -> None:
        for part, split in enumerate(SPLITS):
            for breed in range(self.classes):
                folder = root / split / _NAMES[breed]
                folder.mkdir(parents=True, exist_ok=True)
                for i in range(getattr(self, split)):
                    rng = np.random.default_rng((self.seed, part, breed, i))
                    picture = draw_head(looks_of(breed, self.seed), rng, self.size_px)
                    _, content = cv2.imencode(".png", picture[..., ::-1])
                    (folder / f"{split}-{breed}-{i:04d}.png").write_bytes(content.tobytes())
        (root / ".drawn").touch()


def looks_of(breed: int, seed: int) -> np.ndarray:
    """Return what a breed looks like, shape ``(8,)``, each from 0 to 1."""
    rng = np.random.default_rng((seed, 7919))
    return np.asarray(rng.uniform(0.1, 0.9, size=(len(_NAMES), 8))[breed])


def draw_head(breed: np.ndarray, rng: np.random.Generator, size_px: int) -> Picture:
    """Draw an individual of a breed.

    Args:
        breed: As from ``looks_of``.
        rng: Where the individual, its pose and its surroundings come from.
        size_px: Height and width.
    """
    looks = _Looks.of(breed + rng.normal(0, _SPREAD, size=len(breed)))
    side = 2 * size_px
    canvas = _surroundings(rng, side)
    scale = side * rng.uniform(0.24, 0.34)
    middle = side * (0.5 + rng.uniform(-0.08, 0.08, size=2)) + (0, 0.06 * side)
    turn = rng.normal(0, 14)
    coat = _coat(looks.coat, rng)
    dark = tuple(0.45 * value for value in coat)
    _ears(canvas, looks, middle, scale, turn, dark)
    wide = scale * (0.75 + 0.4 * looks.head)
    _ellipse(canvas, middle, (wide, scale), turn, coat)
    _patches(canvas, looks, middle, scale, turn, rng)
    for sign in (-1, 1):
        eye = _at(middle, turn, sign * 0.42 * wide, -0.2 * scale)
        _ellipse(canvas, eye, (scale * (0.09 + 0.1 * looks.eyes),) * 2, turn, (24, 22, 20))
    long = scale * (0.22 + 0.4 * looks.snout)
    snout = _at(middle, turn, 0, 0.35 * scale + 0.4 * long)
    light = tuple(min(255, 0.5 * value + 110) for value in coat)
    _ellipse(canvas, snout, (0.42 * wide, long), turn, light)
    _ellipse(canvas, snout, (0.14 * wide, 0.1 * scale), turn, (30, 26, 26))
    small = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
    noisy = small * rng.uniform(0.65, 1.2) + rng.normal(0, 7, size=small.shape)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def _surroundings(rng: np.random.Generator, side: int) -> np.ndarray:
    coarse = rng.uniform(20, 220, size=(5, 5, 3)).astype(np.float32)
    canvas = np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    for _ in range(rng.integers(2, 6)):
        first, second = rng.integers(0, side, size=(2, 2)).tolist()
        colour = tuple(rng.uniform(0, 255, size=3).tolist())
        cv2.line(canvas, first, second, colour, int(rng.integers(1, side // 12)))
    return canvas


def _coat(tone: float, rng: np.random.Generator) -> tuple[float, ...]:
    dark, light = np.array([70, 48, 32]), np.array([230, 205, 170])
    colour = dark + (light - dark) * np.clip(tone + rng.normal(0, 0.15), 0, 1)
    return tuple(np.clip(colour + rng.normal(0, 14, size=3), 0, 255).tolist())


def _ears(
    canvas: np.ndarray,
    looks: _Looks,
    middle: np.ndarray,
    scale: float,
    turn: float,
    colour: tuple[float, ...],
) -> None:
    length, width = scale * (0.5 + 0.9 * looks.ear_length), scale * (0.25 + 0.35 * looks.ear_width)
    for sign in (-1, 1):
        lean = np.radians(sign * (15 + 140 * looks.ear_droop) + turn)
        root = _at(middle, turn, sign * 0.6 * scale, -0.55 * scale)
        along = np.array([np.sin(lean), -np.cos(lean)])
        across = np.array([along[1], -along[0]])
        tip = root + length * along
        belly = root + 0.45 * length * along
        outline = [root + across * width, belly + across * width, tip, belly - across * width]
        corners = np.array([*outline, root - across * width]).round().astype(np.int32)
        cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA)


def _patches(
    canvas: np.ndarray,
    looks: _Looks,
    middle: np.ndarray,
    scale: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    for _ in range(round(7 * looks.patches)):
        place = _at(middle, turn, *(scale * rng.uniform(-0.55, 0.55, size=2)))
        tone = rng.uniform(0, 90)
        _ellipse(canvas, place, tuple(scale * rng.uniform(0.08, 0.22, size=2)), turn, (tone,) * 3)


def _at(middle: np.ndarray, turn: float, right: float, down: float) -> np.ndarray:
    angle = np.radians(turn)
    x = right * np.cos(angle) - down * np.sin(angle)
    y = right * np.sin(angle) + down * np.cos(angle)
    return np.asarray(middle + np.array([x, y]))


def _ellipse(
    canvas: np.ndarray,
    place: np.ndarray,
    radii: tuple[float, ...],
    turn: float,
    colour: tuple[float, ...],
) -> None:
    x, y = place.round().astype(int).tolist()
    wide, high = (max(1, round(radius)) for radius in radii)
    cv2.ellipse(canvas, (x, y), (wide, high), turn, 0, 360, colour, -1, cv2.LINE_AA)
