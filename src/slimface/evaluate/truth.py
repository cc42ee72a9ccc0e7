"""Truth: the faces a detector is scored against, and which of them count."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from slimface.data.pictures import PictureSet
from slimface.errors import DataError

ANNOTATIONS = "annotations"
"""Name of any truth that is not a published one."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The ground truth of a data set, the faces of all pictures in one array.

    A face that does not count in a subset is set aside there: finding it is neither right nor
    wrong.
    """

    name: str
    names: tuple[str, ...]
    """The pictures: ``event/name.jpg``."""

    counts: npt.NDArray[np.intp]
    """Number of faces of each picture."""

    boxes: npt.NDArray[np.float64]
    """Shape ``(counts.sum(), 4)``: corners in pixels, picture by picture."""

    counting: Mapping[str, Mask]
    """For each subset, whether each face counts."""

    pictures_in_truth: int
    """Number of pictures before any were left out."""

    empty_pictures_count: bool
    """Whether detections in pictures without any face are false positives. WIDER FACE's own tools
    pass such pictures by."""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, pictures: PictureSet) -> Self:
        """Truth from the annotations of pictures: one subset, ``all``.

        Faces that the annotations call invalid are set aside.
        """
        boxes = [np.zeros((0, 4)), *(one.faces.boxes.astype(np.float64) for one in pictures)]
        valid = [np.zeros(0, dtype=bool), *(one.attribute("invalid") == 0 for one in pictures)]
        return cls(
            ANNOTATIONS,
            tuple(one.name for one in pictures),
            np.asarray([len(one.faces) for one in pictures], dtype=np.intp),
            np.concatenate(boxes),
            {"all": np.concatenate(valid)},
            len(pictures),
            empty_pictures_count=True,
        )

    @property
    def sha256(self) -> str:
        """Hash of the pictures' names, their boxes, and which of them count, in hex."""
        digest = hashlib.sha256()
        digest.update("\n".join(self.names).encode())
        digest.update(self.counts.astype("<i8").tobytes())
        digest.update(self.boxes.astype("<f8").tobytes())
        for subset, mask in self.counting.items():
            digest.update(subset.encode() + mask.tobytes())
        digest.update(bytes([self.empty_pictures_count]))
        return digest.hexdigest()

    def restricted(self, names: Iterable[str]) -> Self:
        """Return the truth of these pictures only, in the order of the whole truth.

        Raises:
            DataError: A name is not in this truth.
        """
        places = {name: i for i, name in enumerate(self.names)}
        wanted = list(names)
        strange = [name for name in wanted if name not in places]
        if strange:
            raise DataError(
                f"{len(strange)} of {len(wanted)} pictures are not in the ground truth "
                f"{self.name!r}, the first is {strange[0]!r}.\n"
                "Evaluate pictures of the split this ground truth belongs to, or choose --truth "
                "annotations to score against the annotations beside the pictures."
            )
        picked = np.zeros(len(self), dtype=bool)
        picked[[places[name] for name in wanted]] = True
        rows = np.repeat(picked, self.counts)
        return type(self)(
            self.name,
            tuple(name for name, stays in zip(self.names, picked, strict=True) if stays),
            self.counts[picked],
            self.boxes[rows],
            {subset: mask[rows] for subset, mask in self.counting.items()},
            self.pictures_in_truth,
            self.empty_pictures_count,
        )
