"""Sources: where the pictures of a training or an evaluation come from, as values."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import slimface
from slimface.core.value import Value
from slimface.data.drawn import Drawn, write_drawn
from slimface.data.drawn_breeds import DrawnBreeds
from slimface.data.folders import ClassFolders
from slimface.data.landmarks import LABELS, read_landmarks, with_landmarks
from slimface.data.pets import Pets
from slimface.data.pictures import PictureSet
from slimface.data.widerface import read_widerface
from slimface.errors import MissingError

Split = Literal["train", "val"]


class WiderFace(Value):
    """A folder in the official layout of WIDER FACE; any other data can be brought into it.

    Where a ``label.txt`` with five landmarks a face lies beside ``WIDER_{split}/images``, its
    landmarks are taken for the faces of the same boxes.
    """

    kind: Literal["widerface"] = "widerface"
    root: str = ""
    """The folder with WIDER_train, WIDER_val and wider_face_split; empty: SLIMFACE_WIDER."""

    limit: int | None = Field(default=None, gt=0)
    """Use only so many training pictures, spread evenly."""

    def folder(self) -> Path:
        """Return the folder.

        Raises:
            MissingError: It is not there.
        """
        root = self.root or os.environ.get("SLIMFACE_WIDER", "")
        if not root or not Path(root).is_dir():
            raise MissingError(
                f"No WIDER FACE at {root or '(nowhere)'}: the folder with WIDER_train, WIDER_val "
                "and wider_face_split is needed.\n"
                "Name it with --data DIR, the recipe's data.root, or the variable SLIMFACE_WIDER; "
                "`slimface demo data DIR` draws a small one."
            )
        return Path(root)

    def pictures(self, split: Split) -> PictureSet:
        """Read one of the two splits."""
        root = self.folder()
        pictures = read_widerface(root, split)
        labels = root / f"WIDER_{split}" / LABELS
        if labels.is_file():
            pictures = with_landmarks(pictures, labels)
        return _limited(pictures, self.limit) if split == "train" else pictures


class Landmarks(Value):
    """A folder in RetinaFace's layout: ``train`` and ``val``, each ``label.txt`` and ``images``."""

    kind: Literal["landmarks"] = "landmarks"
    root: str
    limit: int | None = Field(default=None, gt=0)
    """Use only so many training pictures, spread evenly."""

    def folder(self) -> Path:
        """Return the folder."""
        return Path(self.root)

    def pictures(self, split: Split) -> PictureSet:
        """Read one of the two splits."""
        pictures = read_landmarks(self.folder(), split)
        return _limited(pictures, self.limit) if split == "train" else pictures


class DrawnScenes(Value):
    """Drawn scenes, written once to the cache in the layout of WIDER FACE."""

    kind: Literal["drawn"] = "drawn"
    train: int = Field(default=1200, gt=0)
    """Scenes to learn from."""

    val: int = Field(default=80, gt=0)
    """Scenes to measure on."""

    size_px: int = Field(default=320, ge=64)
    seed: int = 0

    def folder(self) -> Path:
        """Return the folder that the scenes are in once they are drawn."""
        home = Path(os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface")
        # With the version, since a newer one may draw otherwise.
        return home / "drawn" / f"{slimface.__version__}-{self.fingerprint()[:16]}"

    def pictures(self, split: Split) -> PictureSet:
        """Read one of the two splits; draw it first unless that has been done."""
        root = self.folder()
        labels = root / f"WIDER_{split}" / LABELS
        # Written last, so where it is all the rest is.
        if not labels.is_file():
            # Odd and even seeds: no scene of one split is in the other.
            seed = 2 * self.seed + (split == "val")
            count = self.train if split == "train" else self.val
            side = self.size_px
            scenes = Drawn(count=count, height_px=side, width_px=side, seed=seed)
            write_drawn(scenes, root, split)
        return with_landmarks(read_widerface(root, split), labels)


Source = Annotated[
    WiderFace | Landmarks | DrawnScenes | Pets | ClassFolders | DrawnBreeds,
    Field(discriminator="kind"),
]


def _limited(pictures: PictureSet, limit: int | None) -> PictureSet:
    if limit is None or limit >= len(pictures):
        return pictures
    stride = len(pictures) / limit
    return pictures.subset([int(i * stride) for i in range(limit)])
