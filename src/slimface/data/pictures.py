"""Annotated pictures: which pictures there are, and the faces known to be on them."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces

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
