"""Drawn scenes: people on all kinds of surfaces, with the exact box and landmarks of each face.

Tests, the demo and tutorials need no download: a scene is a function of a seed and a number.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from slimface.core.faces import Faces, Floats
from slimface.core.value import Value
from slimface.data.drawn_backdrop import backdrop, clutter, cover, finish, palette
from slimface.data.drawn_face import Pose, draw_body, draw_head
from slimface.data.drawn_portraits import portraits
from slimface.data.landmarks import LABELS, write_labels
from slimface.data.pictures import Annotated, PictureSet
from slimface.data.widerface import write_widerface
from slimface.deploy.pipeline import Picture
from slimface.errors import DataError

_TRIES = 30
_COVERED = 0.15
"""At most this share of a face is hidden by the people before it."""

_JPEG_QUALITY = 92


class Drawn(Value):
    """A set of drawn scenes. Equal values draw the same pictures, byte for byte.

    That holds for one version of OpenCV, and where the packages that hold the two portraits are
    installed alike; with ``portrait_share=0`` they do not matter.
    """

    count: int = Field(gt=0)
    """Number of scenes."""

    height_px: int = Field(default=320, ge=64)
    width_px: int = Field(default=320, ge=64)
    seed: int = Field(default=0, ge=0)
    fewest: int = Field(default=1, ge=0)
    """Fewest faces a scene is meant to have; a scene too full for the rest has fewer."""

    most: int = Field(default=8, ge=0)
    smallest_px: float = Field(default=12, ge=6)
    """Height of the smallest faces."""

    largest_share: float = Field(default=0.45, gt=0, le=0.9)
    """Height of the largest faces, as a share of the shorter side of the picture."""

    portrait_share: float = Field(default=0.1, ge=0, le=1)
    """Share of faces that are one of two public-domain photographs: Eileen Collins (NASA, in
    scikit-image) and Grace Hopper (US Navy, in matplotlib); drawn ones where these are missing."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "Drawn":
        if self.most < self.fewest:
            raise ValueError(f"most ({self.most}) must not be below fewest ({self.fewest})")
        if self.largest_px < self.smallest_px:
            raise ValueError(
                f"largest_share allows {self.largest_px:.0f} px at this size of picture, less than "
                f"smallest_px ({self.smallest_px:.0f})"
            )
        return self

    @property
    def largest_px(self) -> float:
        """Height of the largest faces in pixels."""
        return self.largest_share * min(self.height_px, self.width_px)


def draw(spec: Drawn, index: int) -> tuple[Picture, Faces]:
    """Draw one scene.

    Returns:
        The picture, shape ``(height_px, width_px, 3)``, and its faces with landmarks. Boxes are
        the smallest around the oval of a face, from hairline to chin, in whole pixels.
    """
    rng = np.random.default_rng((spec.seed, index))
    colours = palette(rng)
    picture = backdrop(rng, spec.height_px, spec.width_px, colours)
    clutter(picture, rng, colours, int(rng.integers(2, 12)))
    poses = _place(spec, rng)
    boxes: list[Floats] = []
    landmarks: list[Floats] = []
    # Far people first: those before them may cover a little of them.
    for pose in reversed(poses):
        cloth = colours[rng.integers(len(colours))] * rng.uniform(0.5, 1.15)
        draw_body(picture, pose, rng, cloth)
        photo = portraits()[rng.integers(4)] if rng.random() < spec.portrait_share else None
        if photo is None:
            draw_head(picture, pose, rng)
            boxes.append(pose.box())
            landmarks.append(pose.landmarks())
        else:
            box, points = photo.paste(picture, pose.x, pose.y, pose.height_px)
            boxes.append(box)
            landmarks.append(points)
        if rng.random() < 0.1:
            cover(picture, boxes[-1], rng, colours)
    picture = finish(picture, rng)
    if not boxes:
        return picture, Faces.none()
    return picture, Faces.annotated(np.stack(boxes), np.stack(landmarks))


def _place(spec: Drawn, rng: np.random.Generator) -> list[Pose]:
    """Find a place for each face, the nearest (largest) first."""
    count = int(rng.integers(spec.fewest, spec.most + 1))
    low, high = np.log(spec.smallest_px), np.log(spec.largest_px)
    middle = rng.uniform(low, high)
    heights = np.exp(np.clip(middle + rng.normal(0, 0.45, count), low, high))
    poses: list[Pose] = []
    hidden = np.zeros((0, 4))
    for height in np.sort(heights)[::-1]:
        width = height * rng.uniform(0.72, 0.86)
        tilt = float(np.clip(rng.normal(0, 0.12), -0.4, 0.4))
        yaw = float(np.clip(rng.normal(0, 0.1), -0.28, 0.28))
        margin = 0.62 * height
        for _ in range(_TRIES):
            x = rng.uniform(margin, spec.width_px - margin)
            y = rng.uniform(margin, spec.height_px - margin)
            box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            if _shared(box, hidden) <= _COVERED:
                poses.append(Pose(float(x), float(y), float(height), float(width), tilt, yaw))
                head = box + np.array([-0.2, -0.45, 0.2, 0.1]) * height
                torso = (x - 0.95 * height, y + 0.6 * height, x + 0.95 * height, spec.height_px)
                hidden = np.concatenate([hidden, [head, torso]])
                break
    return poses


def _shared(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    """Largest share of ``box`` that one of the others covers."""
    if not len(others):
        return 0.0
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(np.prod(np.clip(sides, 0, None), axis=1).max() / np.prod(box[2:] - box[:2]))


def write_drawn(
    spec: Drawn,
    root: Path,
    split: str,
    *,
    track: Callable[[Iterable[int]], Iterable[int]] = lambda indices: indices,
) -> PictureSet:
    """Draw scenes into a folder in the official layout of WIDER FACE, as JPEG.

    The landmarks go into a ``label.txt`` beside ``images``, which is written last.

    Args:
        spec: What to draw.
        root: The folder; ``WIDER_{split}`` and ``wider_face_split`` are made in it.
        split: ``train`` or ``val``.
        track: Wraps the iteration over the scenes, to show progress.

    Returns:
        The set, as ``read_widerface`` will read it.

    Raises:
        DataError: The folder cannot be written.
    """
    root = Path(root)
    images = root / f"WIDER_{split}" / "images"
    pictures: list[Annotated] = []
    for index in track(range(spec.count)):
        picture, faces = draw(spec, index)
        name = f"{index // 1000}--Drawn/{index // 1000}_Drawn_{index:06d}.jpg"
        _write_jpeg(picture, images / name)
        pictures.append(Annotated(name, images / name, faces))
    scenes = PictureSet(f"drawn-{split}", tuple(pictures))
    write_widerface(scenes, root, split)
    write_labels(scenes, root / f"WIDER_{split}" / LABELS)
    return scenes


def _write_jpeg(picture: Picture, path: Path) -> None:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not done:
        raise DataError(f"{path}: the scene could not be compressed.\nDraw smaller scenes.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}).\n"
            "Choose a folder that can be written and has room."
        ) from error
