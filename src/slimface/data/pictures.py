"""Annotated pictures: which pictures there are, the faces on them, and their pixels."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces
from slimface.deploy.pipeline import Picture
from slimface.errors import DataError

ATTRIBUTE_NAMES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
"""What WIDER FACE says about each face beside its box, in the order of its files."""

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One picture and the faces known to be on it."""

    name: str
    """Path below the folder of pictures, with slashes: ``0--Parade/x.jpg``."""

    path: Path
    faces: Faces
    labels: Labels | None = None
    """Shape ``(n, 6)``, a column for each of ``ATTRIBUTE_NAMES``; None where nobody says."""

    def attribute(self, name: str) -> Labels:
        """Return one attribute of each face, shape ``(n,)``; zeros where nobody says."""
        column = ATTRIBUTE_NAMES.index(name)
        if self.labels is None:
            return np.zeros(len(self.faces), dtype=np.uint8)
        return self.labels[:, column]


@dataclass(frozen=True, slots=True, eq=False)
class PictureSet:
    """A named, ordered set of annotated pictures."""

    name: str
    pictures: tuple[Annotated, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Annotated]:
        return iter(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Annotated: ...
    @overload
    def __getitem__(self, index: slice) -> "PictureSet": ...
    def __getitem__(self, index: int | slice) -> "Annotated | PictureSet":
        if isinstance(index, slice):
            return replace(self, pictures=self.pictures[index])
        return self.pictures[index]

    def subset(self, indices: Iterable[int]) -> "PictureSet":
        """Return the pictures at these places, in this order."""
        return replace(self, pictures=tuple(self.pictures[i] for i in indices))

    def with_faces(self) -> "PictureSet":
        """Return the pictures that have a face."""
        return replace(self, pictures=tuple(one for one in self.pictures if len(one.faces)))

    @property
    def face_count(self) -> int:
        """Number of faces on all pictures."""
        return sum(len(one.faces) for one in self.pictures)

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of names and boxes; where the files lie does not matter."""
        digest = hashlib.sha256()
        for one in self.pictures:
            digest.update(f"{one.name}\n{len(one.faces)}\n".encode())
            digest.update(np.ascontiguousarray(one.faces.boxes, dtype="<f4").tobytes())
        return digest.hexdigest()


def decode(data: bytes, *, where: Path, reduction: int = 1) -> Picture:
    """Decode a picture, turned upright as its EXIF data say.

    Args:
        data: The bytes of the file.
        where: The file, for error messages.
        reduction: 1, 2, 4 or 8: decode at this fraction of both sides, which JPEG files do at a
            fraction of the time.

    Raises:
        DataError: These bytes are no picture, or only the beginning of one.
    """
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError(
            f"{where}: the JPEG file ends in the middle of its pixels ({len(data)} bytes).\n"
            "Fetch the file again, or take its lines out of the annotations."
        )
    mode = {
        1: cv2.IMREAD_COLOR_RGB,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduction]
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        picture = None
    if picture is None:
        raise DataError(
            f"{where}: not a picture that can be decoded ({len(data)} bytes).\n"
            "Fetch the file again, or take its lines out of the annotations."
        )
    if reduction != 1:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
    return np.asarray(picture, dtype=np.uint8)


def read_bytes(path: Path) -> bytes:
    """Return the content of a picture file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the picture cannot be read ({error.strerror}).\n"
            "Put the file back, or take its lines out of the annotations."
        ) from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width from the header of a plain JPEG file, without decoding it.

    None for anything else, which includes JPEG files with EXIF data: those may be turned.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            return (data[at + 5] << 8) | data[at + 6], (data[at + 7] << 8) | data[at + 8]
        if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return None
        at += 2 + ((data[at + 2] << 8) | data[at + 3])
    return None
