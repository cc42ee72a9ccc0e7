"""From pictures to a network's input: resize, normalise, pad."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from slimface.core.faces import Floats
from slimface.core.spec import Preprocess, WholePicture
from slimface.deploy.pixels import Picture, linear, resized, split
from slimface.errors import UsageError


class Normaliser:
    """Resize, normalise and pad pictures into a buffer that is used again and again.

    What a call returns is valid until the next call in the same thread.
    """

    KEPT_VALUES = 16 * 2**20
    """Larger buffers (64 MB and more a thread) are not kept."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        self._mean = [np.float32(value) for value in preprocess.mean]
        self._buffers = threading.local()

    def __call__(
        self,
        pictures: Sequence[Picture],
        height: int,
        width: int,
        *,
        canvas: tuple[int, int] | None = None,
    ) -> Floats:
        """Return normalised pictures, shape ``(b, 3, padded height, padded width)``.

        They are padded to ``canvas`` if it is given, else as the spec says.
        """
        plan = self.preprocess
        multiple = plan.multiple_of
        padded = canvas or (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        images: Floats = self._room("images", (len(pictures), 3, *padded), np.dtype(np.float32))
        planes = list(self._room("planes", (3, height, width), np.dtype(np.uint8)))
        if padded != (height, width):
            images[:, :, height:] = 0
            images[:, :, :, width:] = 0
        channels = (0, 1, 2) if plan.colour == "rgb" else (2, 1, 0)
        for image, picture in zip(images, pictures, strict=True):
            split(linear(picture, height, width), planes)
            for target, channel in zip(image, channels, strict=True):
                inner = target[:height, :width]
                # In two passes: one that subtracts while it converts takes twice as long.
                np.copyto(inner, planes[channel])
                inner -= self._mean[channel]
                if plan.scale != 1:
                    inner *= np.float32(plan.scale)
        return images

    def _room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return an array of this shape with anything in it, in memory that stays if it is small.

        Fresh memory costs several times what normalising does, since the system hands it out page
        by page and takes it back after each picture.
        """
        count = math.prod(shape)
        room = getattr(self._buffers, name, None)
        if room is None or room.size < count:
            room = np.empty(count, dtype=dtype)
            if count <= self.KEPT_VALUES:
                setattr(self._buffers, name, room)
        return room[:count].reshape(shape)


def fitted(picture: Picture, rule: WholePicture) -> Picture:
    """Return the picture at the one size that a classifier looks at."""
    height, width = picture.shape[:2]
    if rule.fit == "crop":
        # The shape of the middle that is kept is that of the result, so nothing is distorted.
        scale = rule.crop * min(height / rule.height_px, width / rule.width_px)
        rows, columns = (
            max(1, round(scale * rule.height_px)), max(1, round(scale * rule.width_px))
        )  # fmt: skip
        top, left = (height - rows) // 2, (width - columns) // 2
        picture = picture[top : top + rows, left : left + columns]
    return resized(picture, rule.height_px, rule.width_px)


def check_picture(picture: Any) -> None:
    """Refuse anything but an 8-bit colour picture.

    Raises:
        UsageError: Says what was given instead.
    """
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"a picture is an array or a path, not {type(picture).__name__}.\n"
            "Give a NumPy array (height, width, 3) of uint8 in RGB order, or the path of a file."
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UsageError(
            f"a picture has shape (height, width, 3) and type uint8, "
            f"not {picture.shape} and {picture.dtype}.\n"
            "Convert it to 8-bit RGB; slimface.deploy.media.read_picture does so for files."
        )
    if picture.size == 0:
        raise UsageError(f"a picture of shape {picture.shape} holds no pixel.\nGive a real one.")
