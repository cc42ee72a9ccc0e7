"""From the bytes of a JPEG, PNG, WebP or BMP to 8-bit RGB.

By Pillow everywhere, for what is measured must be what is shipped. Its JPEG pixels are those of
OpenCV, bit for bit, since both leave them to libjpeg-turbo.
"""

import io
import struct
from collections.abc import Mapping
from typing import Literal

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from slimface.deploy.pixels import Picture

Reduction = Literal[1, 2, 4, 8]

# By name, not by Image.open: that would try a hundred formats, and warn of sizes that are allowed.
_READERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}

_ORIENTATION = 0x112
"""The EXIF tag that tells how the camera was held."""


def decode(
    data: bytes, kind: str, *, reduction: Reduction = 1, upright: bool = True
) -> Picture | None:
    """Decode a picture; None if it is damaged.

    Args:
        data: The whole file.
        kind: What it is, as ``read_header`` says.
        reduction: Both sides are divided by it, rounded up.
        upright: Turn the picture as its EXIF data say.

    Returns:
        Shape ``(height, width, 3)``; it may be read-only.
    """
    # A damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, …
    try:
        image = _READERS[kind](io.BytesIO(data))
        pixels = _eight_bits(_reduced(image, reduction))
    except MemoryError:
        raise
    except Exception:
        return None
    return _turned(pixels, _orientation(image)) if upright else pixels


def _reduced(image: ImageFile.ImageFile, reduction: Reduction) -> Image.Image:
    if reduction == 1:
        return image
    width, height = image.size
    # A JPEG can be decoded at a fraction of its size, which saves most of the work.
    image.draft(None, (max(1, width // reduction), max(1, height // reduction)))
    left = -(-width // image.size[0]), -(-height // image.size[1])
    return image if max(left) >= reduction else image.reduce(reduction // max(left))


def _eight_bits(image: Image.Image) -> Picture:
    if image.mode.startswith("I"):
        # Sixteen bits of grey, which Pillow would clip.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """How the camera was held, 1 to 8; 1, upright, if nothing readable tells."""
    exif = Image.Exif()
    try:
        # From what was decoded: a PNG may have these data behind its pixels.
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def _turned(picture: Picture, orientation: int) -> Picture:
    """Undo the way the camera was held: EXIF 2.32, tag Orientation."""
    if not 2 <= orientation <= 8:
        return picture
    if orientation >= 5:
        picture = picture.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
