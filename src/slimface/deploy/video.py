"""Videos and cameras, in and out; the only thing that cannot do without OpenCV."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimface.deploy.container import Header, check_size
from slimface.deploy.pixels import Picture, cv2, linear
from slimface.errors import DataError, MissingError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


@dataclass(frozen=True, slots=True)
class Video:
    """A video file or a camera."""

    name: str
    frames_per_second: float
    frames: int | None
    """What the file announces; None for a camera."""


def read_video(
    name: str, path: Path | None, *, max_pixels: int
) -> Iterator[tuple[Video, Picture, float]]:
    """Iterate over the frames of a video: the video, the frame, and the ms that reading it took.

    Args:
        name: For people; a camera's ends in its number.
        path: The file; None for a camera.
        max_pixels: Larger frames are refused.

    Raises:
        MissingError: The camera cannot be opened, or OpenCV is not installed.
        DataError: The file cannot be opened, its frames are too large, or it ends before the last
            frame it announces.
    """
    opencv = opencv_for(f"reading {path or name}")
    capture = _opened(opencv, name, path)
    try:
        width = int(capture.get(opencv.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(opencv.CAP_PROP_FRAME_HEIGHT))
        check_size(Header("video", width, height), name, max_pixels)
        announced = int(capture.get(opencv.CAP_PROP_FRAME_COUNT))
        video = Video(
            name=name,
            frames_per_second=capture.get(opencv.CAP_PROP_FPS) or 25.0,
            frames=announced if path is not None and announced > 0 else None,
        )
        count = 0
        while True:
            start = time.perf_counter()
            there, frame = capture.read()
            if not there:
                break
            picture: Picture = opencv.cvtColor(frame, opencv.COLOR_BGR2RGB, dst=frame)
            yield video, picture, (time.perf_counter() - start) * 1e3
            count += 1
        _check_end(video, count)
    finally:
        capture.release()


def opencv_for(what: str) -> Any:
    """Return OpenCV.

    Raises:
        MissingError: It is not installed, and ``what`` cannot be done.
    """
    if cv2 is None:
        raise MissingError(
            f"{what} needs the package opencv-python-headless, which is not installed.\n"
            "Install it with: pip install 'slimface[video]'"
        )
    return cv2


def _opened(opencv: Any, name: str, path: Path | None) -> Any:
    if path is None:
        number = int(name.removeprefix("camera"))
        capture = opencv.VideoCapture(number)
        if not capture.isOpened():
            raise MissingError(
                f"camera {number} cannot be opened.\n"
                "Check that it is plugged in, free, and that you may use it; "
                "a file of this name does not exist either."
            )
        return capture
    capture = opencv.VideoCapture(str(path), opencv.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(
            f"{path}: the video cannot be opened: it is damaged, cut off, or of an "
            "unknown kind.\nConvert it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )
    return capture


def _check_end(video: Video, count: int) -> None:
    # Containers count roughly: a frame or two more than there are is common and harmless.
    if video.frames is not None and count < video.frames - max(2, video.frames // 50):
        raise DataError(
            f"{video.name}: the video ends after {count} of the {video.frames} frames it "
            "announces; what was found in them is kept.\nCopy or download the video again."
        )
    if count == 0:
        raise DataError(f"{video.name}: the video holds no frame.\nLeave it out.")


class VideoFile:
    """An MP4 that appears under its name when closed, with all frames written until then."""

    def __init__(self, path: Path, *, height: int, width: int, frames_per_second: float) -> None:
        """Begin a video.

        Raises:
            MissingError: OpenCV is not installed.
            DataError: No encoder for it is at hand.
        """
        self._opencv = opencv_for(f"writing {path}")
        self.path = path.with_suffix(".mp4")
        self._part = path.with_name(f".{os.getpid()}-{path.stem}.mp4")
        self._size = (width, height)
        path.parent.mkdir(parents=True, exist_ok=True)
        code = self._opencv.VideoWriter.fourcc(*"mp4v")
        self._writer = self._opencv.VideoWriter(
            str(self._part), code, frames_per_second, self._size
        )
        if not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: a video of {width} x {height} pixels cannot be written here.\n"
                "Check the folder, or save single pictures."
            )

    def write(self, picture: Picture) -> None:
        """Append a frame."""
        width, height = self._size
        if picture.shape[:2] != (height, width):
            picture = linear(picture, height, width)
        self._writer.write(self._opencv.cvtColor(picture, self._opencv.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file; called twice, it does nothing more."""
        self._writer.release()
        if self._part.exists():
            self._part.replace(self.path)
