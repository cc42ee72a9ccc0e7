"""Pseudo-labels: the faces a teacher finds on pictures that nobody has annotated."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slimface.core.faces import Faces
from slimface.core.value import Value
from slimface.data.pictures import Annotated, PictureSet
from slimface.deploy.media import PICTURE_SUFFIXES, read_picture
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.errors import MissingError, UsageError
from slimface.loading import load
from slimface.model.detector import Detector
from slimface.order import Terms
from slimface.step import Context
from slimface.train.step import Train

log = logging.getLogger(__name__)


class PseudoLabel(Value):
    """Train on the annotated pictures and on what a teacher finds on others.

    Teacher and student may be of any architectures. What the teacher has found is kept in the
    step's folder, a line a picture, so that nothing is looked at twice.

    Source: Lee, "Pseudo-Label", ICML Workshops 2013.
    """

    kind: Literal["pseudo_label"] = "pseudo_label"
    teacher: str
    """A name of the zoo, a checkpoint, or ``step:N`` of the recipe."""

    pictures: str
    """A folder; all pictures in it and below."""

    floor: float = Field(default=0.7, ge=0, le=1)
    """Score from which what the teacher finds is taken for a face."""

    train: Train

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return self.train.terms() | Terms(tasks=frozenset({"detection"}))

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector.

        Raises:
            UsageError: The teacher finds no face, or there is nothing to learn from.
            MissingError: There is no such folder, or no picture in it.
            DataError: A picture cannot be read.
        """
        found = self.annotate(load(self.teacher, device=context.device), context)
        context.record(
            "pseudo_label",
            {"teacher": self.teacher, "pictures": len(found), "faces": found.face_count},
        )
        more: Any = _Joined(context.source, found)
        return self.train(detector, replace(context, source=more))

    def annotate(self, teacher: Pipeline, context: Context) -> PictureSet:
        """Let the teacher look at every picture that it has not looked at yet."""
        folder = Path(self.pictures)
        files = _pictures(folder)
        kept = context.folder / "pseudo-labels.jsonl"
        known = _read(kept)
        with kept.open("a", encoding="utf-8") as log_file:
            fresh = [file for file in files if file.relative_to(folder).as_posix() not in known]
            for file in context.track(fresh, "the teacher looks", total=len(fresh)):
                faces = teacher.detect(read_picture(file), Settings(score_floor=self.floor))
                name = file.relative_to(folder).as_posix()
                known[name] = faces.boxes.tolist()
                log_file.write(json.dumps({"name": name, "boxes": known[name]}) + "\n")
                log_file.flush()
        named = {file.relative_to(folder).as_posix(): file for file in files}
        pictures = tuple(
            Annotated(f"unlabelled/{name}", path, Faces.annotated(known[name]))
            for name, path in named.items()
            if known[name]
        )
        if not pictures:
            raise UsageError(
                f"{teacher.name} finds no face with a score from {self.floor} on, on any of the "
                f"{len(files)} pictures of {folder}.\nLower the floor, or name other pictures."
            )
        log.info("%d of %d pictures show faces to %s", len(pictures), len(files), teacher.name)
        return PictureSet(f"{folder.name} seen by {teacher.name}", pictures)


@dataclass(frozen=True)
class _Joined:
    """A source with further pictures to learn from."""

    of: Any
    more: PictureSet

    def pictures(self, split: str) -> PictureSet:
        """Return a split; that to learn from has all the others' pictures as well."""
        if self.of is None:
            return self.more if split == "train" else self.more.subset([])
        known: PictureSet = self.of.pictures(split)
        if split != "train":
            return known
        return PictureSet(known.name, known.pictures + self.more.pictures)

    def folder(self) -> Path:
        """Return the folder of the annotated pictures."""
        place: Path = self.of.folder()
        return place


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingError(f"There is no folder {folder}.\nName one that holds pictures.")
    files = sorted(one for one in folder.rglob("*") if one.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise MissingError(
            f"There is no picture in {folder} ({', '.join(sorted(PICTURE_SUFFIXES))}).\n"
            "Name another folder."
        )
    return files


def _read(path: Path) -> dict[str, Any]:
    """Return what was found before; a line that was cut off by a kill does not count."""
    known: dict[str, Any] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                known[entry["name"]] = entry["boxes"]
            except (ValueError, KeyError, TypeError):
                continue
    return known
