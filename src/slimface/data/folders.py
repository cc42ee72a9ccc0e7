"""Folders: a data set in which each class is a folder of pictures."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field

from slimface.core.value import Value
from slimface.data.labelled import Labelled, LabelledSet, LabelledSplit
from slimface.data.pictures import PictureSet
from slimface.deploy.media import PICTURE_SUFFIXES
from slimface.errors import DataError, MissingError, UsageError

SPLITS: tuple[LabelledSplit, ...] = ("train", "val", "test")

VAL = TEST = 0.1
"""Shares of the pictures of a set that nobody has split."""


class ClassSource(Value):
    """Where the pictures of a classifier come from."""

    def labelled(self, split: LabelledSplit) -> LabelledSet:
        """Read one of the three splits; no picture is in two of them."""
        raise NotImplementedError

    def pictures(self, split: str) -> PictureSet:
        """Complain: there are no faces here.

        Raises:
            UsageError: Always.
        """
        self._no_faces()

    def folder(self) -> Path:
        """Complain, as ``pictures`` does."""
        self._no_faces()

    def _no_faces(self) -> NoReturn:
        raise UsageError(
            "These pictures have classes and no faces, so no detector can learn from them or be "
            "measured on them.\nName a data set of faces, or a classifier (classifier:resnet18)."
        )


class ClassFolders(ClassSource):
    """``ROOT/train/CLASS/*.jpg``, ``val`` and ``test`` likewise; or ``ROOT/CLASS/*.jpg``.

    What nobody has split is split by a hash of the names: a tenth to choose by, a tenth to report.
    Without ``test``, ``val`` is reported and a tenth of ``train`` is chosen by.
    """

    kind: Literal["folders"] = "folders"
    root: str = Field(min_length=1)

    def labelled(self, split: LabelledSplit) -> LabelledSet:
        """Read a split.

        Raises:
            MissingError: There is no such folder.
            DataError: It has another layout, or a class without pictures.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise MissingError(
                f"There is no folder {root}.\nName one with a folder of pictures for each class."
            )
        if not (root / "train").is_dir():
            return divided(_read(root, root.name), split, val=VAL, test=TEST)
        if (root / "test").is_dir():
            if (root / "val").is_dir():
                return self._part(split)
            if split == "test":
                return self._part("test")
            return divided(self._part("train"), split, val=VAL, test=0)
        if split == "test":
            return self._part("val")
        return divided(self._part("train"), split, val=VAL, test=0)

    def _part(self, split: str) -> LabelledSet:
        root = Path(self.root)
        part = _read(root / split, f"{root.name} {split}")
        known = _classes(root / "train")
        if part.classes != known:
            odd = sorted(set(part.classes) ^ set(known))
            raise DataError(
                f"{root}: train and {split} do not have the same classes ({', '.join(odd[:5])}).\n"
                "Give each split a folder for each class."
            )
        return part


def divided(pictures: LabelledSet, split: LabelledSplit, *, val: float, test: float) -> LabelledSet:
    """Return a part of a set, by a hash of the names: a picture always falls on the same side."""

    def side(name: str) -> LabelledSplit:
        at = int(hashlib.sha256(f"split {name}".encode()).hexdigest()[:8], 16) / 2**32
        return "val" if at < val else "test" if at < val + test else "train"

    part = pictures.subset(i for i, one in enumerate(pictures) if side(one.name) == split)
    return LabelledSet(f"{pictures.name} {split}", part.classes, part.pictures)


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(one.name for one in root.iterdir() if one.is_dir()))


def _read(root: Path, name: str) -> LabelledSet:
    if not root.is_dir():
        raise MissingError(
            f"There is no folder {root}.\nA split is a folder with a folder for each class."
        )
    classes = _classes(root)
    if len(classes) < 2:
        raise DataError(
            f"{root} has {len(classes)} folders; each class is one, and there are two at least.\n"
            "Put the pictures of each class into a folder with its name."
        )
    found: list[Labelled] = []
    for label, kind in enumerate(classes):
        files = _pictures(root / kind)
        if not files:
            raise DataError(
                f"{root / kind} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}).\n"
                "Remove the folder, or put the pictures of the class into it."
            )
        found += [Labelled(f"{kind}/{one.name}", one, label) for one in files]
    return LabelledSet(name, classes, tuple(found))


def _pictures(folder: Path) -> Sequence[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES)
