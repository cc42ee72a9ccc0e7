"""Annotated pictures: which pictures there are, and the faces known to be on them."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces
from slimface.errors import DataError

log = logging.getLogger(__name__)

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
        if name not in ATTRIBUTE_NAMES:
            raise ValueError(f"{name!r} is none of the attributes {', '.join(ATTRIBUTE_NAMES)}")
        if self.labels is None:
            return np.zeros(len(self.faces), dtype=np.uint8)
        return self.labels[:, ATTRIBUTE_NAMES.index(name)]


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
        """Return the SHA-256, in hex, of names, boxes and landmarks; not of where files lie."""
        digest = hashlib.sha256()
        for one in self.pictures:
            digest.update(f"{one.name}\n{len(one.faces)}\n".encode())
            digest.update(np.ascontiguousarray(one.faces.boxes, dtype="<f4").tobytes())
            if one.faces.landmarks is not None:
                digest.update(np.ascontiguousarray(one.faces.landmarks, dtype="<f4").tobytes())
        return digest.hexdigest()


class Listed(Protocol):
    """A picture in a file of annotations."""

    @property
    def name(self) -> str:
        """Path below the folder of pictures."""
        ...

    @property
    def line(self) -> int:
        """Line of the name."""
        ...

    @property
    def face_count(self) -> int:
        """Faces listed, those without a size among them."""
        ...


L = TypeVar("L", bound=Listed)


def gathered(
    name: str,
    entries: Iterable[L],
    annotated: Callable[[L, Path], Annotated],
    *,
    source: Path,
    images: Path,
    advice: str,
    partial: bool,
) -> PictureSet:
    """Return the pictures that a file of annotations lists.

    What is left out is counted in the log: faces without a size, and pictures that are not there.

    Args:
        name: Of the set.
        entries: What the file says.
        annotated: Makes a picture of an entry and the folder of pictures; drops sizeless faces.
        source: The file.
        images: The folder of pictures.
        advice: What to do about a picture that is not there.
        partial: Leave such pictures out.

    Raises:
        DataError: A picture is not there, and the set is not to be partial.
    """
    present = _Present(images)
    pictures: list[Annotated] = []
    absent = sizeless = 0
    for entry in entries:
        if entry.name not in present:
            absent += 1
            if not partial:
                raise DataError(
                    f"{source}:{entry.line}: the picture {entry.name} is not in {images}.\n{advice}"
                )
            continue
        one = annotated(entry, images)
        sizeless += entry.face_count - len(one.faces)
        pictures.append(one)
    if sizeless:
        log.info("%s: %d faces of no width or height were left out", source, sizeless)
    if absent:
        log.info("%s: %d pictures are not in %s and were left out", source, absent, images)
    return PictureSet(name, tuple(pictures))


class _Present:
    """Which pictures are there; each folder is listed once, as asking for each file is slow."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self.folders: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self.folders:
            try:
                with os.scandir(self.images / folder) as found:
                    self.folders[folder] = {file.name for file in found if file.is_file()}
            except OSError:
                self.folders[folder] = set()
        return file in self.folders[folder]
