"""What a picture file says about itself: its kind, its size, and whether all of it is there.

Only the structure of the file is read, no pixel is decoded, so hostile sizes cost nothing.
Sources: ITU-T T.81 (JPEG) annex B; W3C PNG section 5; RFC 9649 (WebP) section 2; the BMP headers
as documented by Microsoft.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from slimface.errors import DataError

# In JPEG data, FF 00 is an escaped byte, FF D0..D7 are restart marks, FF FF is padding.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA


@dataclass(frozen=True, slots=True)
class Header:
    """Kind and size of a picture as stored, before any rotation."""

    kind: str
    width: int
    height: int
    complete: bool = True
    """False when the file ends before the picture does."""


def read_header(data: bytes, *, where: str) -> Header:
    """Read the kind and size of a picture from its first bytes, and look for its end.

    Raises:
        DataError: It is none of JPEG, PNG, WebP and BMP, or ends within its header.
    """
    reader = _reader(data)
    if reader is None:
        raise DataError(
            f"{where}: not a JPEG, PNG, WebP or BMP picture (it starts with {_glimpse(data)}).\n"
            "Convert it to one of these, or leave it out; the name of a file does not matter."
        )
    kind, read = reader
    try:
        return read(data)
    except (struct.error, IndexError, ValueError):
        raise DataError(
            f"{where}: the {kind} is cut off or damaged within its header.\n"
            "Download or copy it again, or leave it out."
        ) from None


def check_size(header: Header, where: str, max_pixels: int) -> None:
    """Refuse a picture or a video by what its header says, before a pixel is decoded.

    Raises:
        DataError: It has no pixels, or too many.
    """
    if header.width < 1 or header.height < 1:
        raise DataError(
            f"{where}: the {header.kind} says it is {header.width} x {header.height} pixels.\n"
            "It is damaged; leave it out."
        )
    if header.width * header.height > max_pixels:
        raise DataError(
            f"{where}: {header.width} x {header.height} pixels are more than the "
            f"{max_pixels:,} that are decoded.\n"
            "Store it smaller, or allow more with max_pixels= (--max-pixels)."
        )


def _reader(data: bytes) -> tuple[str, Callable[[bytes], Header]] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", _read_jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _read_png
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", _read_webp
    if data.startswith(b"BM"):
        return "BMP", _read_bmp
    return None


def _glimpse(data: bytes) -> str:
    return repr(data[:12]).removeprefix("b") if data else "nothing: it is empty"


def _read_jpeg(data: bytes) -> Header:
    width = height = 0
    position, complete = 2, False
    while position < len(data):
        # Segments are skipped by their length, so that the end of a thumbnail inside of one is
        # not taken for the end of the picture.
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            break
        marker, position = data[found.start() + 1], found.end()
        if marker == _JPEG_END:
            complete = True
            break
        if marker in _JPEG_BARE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
        position += length
    if not width:
        raise ValueError("no frame")
    return Header("JPEG", width, height, complete)


def _read_png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        ends = position + 12 + length
        if data[position + 4 : position + 8] == b"IEND":
            return Header("PNG", width, height, ends <= len(data))
        position = ends
    return Header("PNG", width, height, complete=False)


def _read_webp(data: bytes) -> Header:
    kind, complete = data[12:16], len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        width, height = 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("no picture chunk")
    return Header("WebP", width, height, complete)


def _read_bmp(data: bytes) -> Header:
    (pixels_at, header_size) = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    # A negative height means that rows run from top to bottom.
    height = abs(height)
    row_bytes = (width * bits + 31) // 32 * 4
    needed = pixels_at + (row_bytes * height if compression in (0, 3) else 1)
    return Header("BMP", width, height, len(data) >= needed)
