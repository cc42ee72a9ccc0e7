"""Draw faces on pictures, and write pictures and videos whole or not at all."""

import os
from pathlib import Path

import cv2
import numpy as np

from slimface.core.faces import Faces
from slimface.deploy.media import Picture
from slimface.errors import DataError
from slimface.files import beside

BOX_COLOUR = (70, 235, 110)
OUTLINE_COLOUR = (16, 24, 20)
POINT_COLOUR = (255, 196, 0)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JPEG_QUALITY = 95


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
            for x, y in faces.landmarks[i]:
                centre = (round(float(x)), round(float(y)))
                cv2.circle(canvas, centre, width + 2, OUTLINE_COLOUR, -1, cv2.LINE_AA)
                cv2.circle(canvas, centre, width + 1, POINT_COLOUR, -1, cv2.LINE_AA)
        if scores:
            _label(canvas, box, f"{faces.scores[i]:.2f}", width)
    return canvas


def _clipped(box: np.ndarray, canvas: Picture) -> tuple[int, int, int, int]:
    height, width = canvas.shape[:2]
    limits = np.asarray([width, height, width, height], dtype=np.float32) - 1
    x1, y1, x2, y2 = np.clip(np.nan_to_num(box), 0, limits).round().astype(int).tolist()
    return x1, y1, x2, y2


def _rectangle(canvas: Picture, box: tuple[int, int, int, int], width: int) -> None:
    first, last = box[:2], box[2:]
    cv2.rectangle(canvas, first, last, OUTLINE_COLOUR, width + 2)
    cv2.rectangle(canvas, first, last, BOX_COLOUR, width)


def _label(canvas: Picture, box: tuple[int, int, int, int], text: str, width: int) -> None:
    size = 0.35 + 0.12 * width
    (wide, high), below = cv2.getTextSize(text, _FONT, size, 1)
    x1, y1, x2, _ = box
    if x2 - x1 < wide * 0.8:
        return
    # Above the box, or inside of it where the picture ends.
    top = y1 - high - below - 2 if y1 >= high + below + 2 else y1
    left = min(x1, canvas.shape[1] - wide - 2)
    cv2.rectangle(
        canvas, (left, top), (left + wide + 2, top + high + below + 1), OUTLINE_COLOUR, -1
    )
    cv2.putText(canvas, text, (left + 1, top + high + 1), _FONT, size, BOX_COLOUR, 1, cv2.LINE_AA)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture in the format its name asks for; folders are made, nothing stays half-done.

    Raises:
        DataError: The name ends in no format that can be written.
        OSError: The disk is full or the folder cannot be written.
    """
    suffix = path.suffix.lower()
    try:
        there, data = cv2.imencode(
            suffix,
            cv2.cvtColor(picture, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else [],
        )
    except cv2.error:
        there = False
    if not there:
        raise DataError(
            f"{path}: a picture cannot be written as '{suffix}'.\n"
            "Name it .jpg, .png, .webp or .bmp."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as part:
        part.write_bytes(data.tobytes())


class VideoFile:
    """An MP4 that appears under its name when closed, with all frames written until then."""

    def __init__(self, path: Path, *, height: int, width: int, frames_per_second: float) -> None:
        """Begin a video.

        Raises:
            DataError: No encoder for it is at hand.
        """
        self.path = path.with_suffix(".mp4")
        self._part = path.with_name(f".{os.getpid()}-{path.stem}.mp4")
        self._size = (width, height)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(
            str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, self._size
        )
        if not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: a video of {width} x {height} pixels cannot be written here.\n"
                "Check the folder, or save single pictures."
            )

    def write(self, picture: Picture) -> None:
        """Append a frame."""
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file; called twice, it does nothing more."""
        self._writer.release()
        if self._part.exists():
            self._part.replace(self.path)
