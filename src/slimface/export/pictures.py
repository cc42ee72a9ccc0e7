"""Which pictures the gate looks at."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from slimface.deploy import pixels
from slimface.deploy.media import sources
from slimface.deploy.pixels import Picture
from slimface.errors import MissingError

SCENES = 12
"""So many drawn scenes stand in where nobody gives pictures."""


def read_pictures(folder: Path, *, limit: int | None = None) -> Iterator[tuple[str, Picture]]:
    """Iterate over the pictures of a folder, or of a file, in the order of their names.

    Raises:
        MissingError: There are none.
        DataError: One of them is damaged.
    """
    for frame in islice(sources([folder]), limit):
        yield frame.name, frame.picture


def sample_pictures(count: int = SCENES) -> Iterator[tuple[str, Picture]]:
    """Iterate over drawn scenes with faces, the same on every machine.

    Raises:
        MissingError: OpenCV, which draws them, is not installed.
    """
    if pixels.cv2 is None:
        raise MissingError(
            "drawing scenes with faces needs the package opencv-python-headless, which is not "
            "installed.\nName a folder with pictures of faces, or install it with: "
            "pip install 'slimface[video]'"
        )
    from slimface.data.drawn import Drawn, draw

    scenes = Drawn(count=count, height_px=480, width_px=640, seed=7)
    for index in range(count):
        yield f"drawn scene {index}", draw(scenes, index)[0]
