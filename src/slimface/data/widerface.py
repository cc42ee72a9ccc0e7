"""WIDER FACE: its folders of pictures and annotations, in and out."""

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from slimface.core.faces import Faces
from slimface.data.annotations import QUIRK, Entry, parse_mat, parse_txt
from slimface.data.pictures import ATTRIBUTE_NAMES, Annotated, PictureSet, gathered
from slimface.errors import DataError, MissingError
from slimface.files import write_text


def read_widerface(
    root: Path, split: str, *, annotations: Path | None = None, partial: bool = False
) -> PictureSet:
    """Read one split of a folder in the official layout of WIDER FACE.

    Pictures are in ``WIDER_{split}/images/``; annotations in ``wider_face_split/`` as
    ``wider_face_{split}_bbx_gt.txt`` or, where that is missing, ``wider_face_{split}.mat``. Faces
    of no width or height, of which the official files hold 42, are left out and counted in the log.

    Args:
        root: The folder with ``WIDER_train``, ``WIDER_val`` and ``wider_face_split``.
        split: ``train`` or ``val``.
        annotations: Read this text or MATLAB file instead.
        partial: The folder holds only some of the annotated pictures: leave out the others and
            count them in the log.

    Raises:
        MissingError: The annotations are not there.
        DataError: They break their format (file and line are named), or a picture is missing.

    Source:
        Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016, arXiv:1511.06523, and the
        readme beside its annotations.
    """
    root = Path(root)
    source = annotations or _annotations(root, split)
    entries = parse_mat(source) if source.suffix == ".mat" else parse_txt(source)
    return gathered(
        f"widerface-{split}",
        entries,
        _annotated,
        source=source,
        images=root / f"WIDER_{split}" / "images",
        advice="Put it there, or say that the folder is a part of the data set (partial).",
        partial=partial,
    )


def _annotated(entry: Entry, images: Path) -> Annotated:
    numbers = entry.numbers[(entry.numbers[:, 2] > 0) & (entry.numbers[:, 3] > 0)]
    boxes = np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:4]], axis=1)
    labels = numbers[:, 4:].astype(np.uint8)
    return Annotated(entry.name, images / entry.name, Faces.annotated(boxes), labels)


def _annotations(root: Path, split: str) -> Path:
    folder = root / "wider_face_split"
    for name in (f"wider_face_{split}_bbx_gt.txt", f"wider_face_{split}.mat"):
        if (folder / name).is_file():
            return folder / name
    raise MissingError(
        f"{folder} holds neither wider_face_{split}_bbx_gt.txt nor wider_face_{split}.mat.\n"
        "Name the folder that holds WIDER_train, WIDER_val and wider_face_split; "
        "`slimface demo data DIR` draws a small one."
    )


def write_widerface(pictures: PictureSet, root: Path, split: str) -> Path:
    """Write pictures and annotations in the official layout; the inverse of ``read_widerface``.

    Pictures that are already in place are left alone, others are copied.

    Returns:
        The text file with the annotations.

    Raises:
        DataError: The folder cannot be written.
    """
    root = Path(root)
    target = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    try:
        for one in pictures:
            place = root / f"WIDER_{split}" / "images" / one.name
            if not place.exists() or not place.samefile(one.path):
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(one.path, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, "".join(_blocks(pictures)))
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be written ({error.strerror}).\n"
            "Choose a folder that can be written and has room."
        ) from error
    return target


def _blocks(pictures: Iterable[Annotated]) -> Iterator[str]:
    for one in pictures:
        boxes = one.faces.boxes.astype(np.float64)
        corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        labels = (
            np.zeros((len(boxes), len(ATTRIBUTE_NAMES)), dtype=np.uint8)
            if one.labels is None
            else one.labels
        )
        rows = [
            " ".join([*map(_number, box), *map(str, marks)])
            for box, marks in zip(corner_size, labels.tolist(), strict=True)
        ]
        yield "\n".join([one.name, str(len(rows)), *(rows or [" ".join(QUIRK)])]) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if math.floor(value) == value else repr(float(value))
