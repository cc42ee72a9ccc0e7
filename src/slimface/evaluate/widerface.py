"""The official ground truth of WIDER FACE's validation split, from its .mat files."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slimface.data.annotations import load_mat, parse_mat
from slimface.data.pictures import PictureSet
from slimface.errors import DataError, MissingError
from slimface.evaluate.truth import Mask, Truth

logger = logging.getLogger(__name__)

SUBSETS = ("easy", "medium", "hard")
GROUND_TRUTH = Path("eval_tools") / "ground_truth"

OFFICIAL_SHA256 = "55b89275696dc411233e5ed91124dc078d045cc8a28b96fdea812c37359195c7"
"""``Truth.sha256`` of the files as their authors publish them."""


def read_truth(folder: Path) -> Truth:
    """Read the ground truth of the whole validation split.

    Args:
        folder: Where ``wider_{easy,medium,hard,face}_val.mat`` are: the data root, or its
            ``eval_tools/ground_truth``.

    Returns:
        Truth with the subsets ``easy``, ``medium``, ``hard``. It is named ``wider-val``, or
        ``wider-val, changed`` if anything in it differs from the published files.

    Raises:
        MissingError: A file is not there, or scipy is not installed.
        DataError: A file is not a MATLAB file or lacks a part.

    Source:
        Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016, arXiv:1511.06523.
    """
    folder = folder / GROUND_TRUTH if (folder / GROUND_TRUTH).is_dir() else folder
    if not folder.is_dir():
        raise MissingError(
            f"{folder}: there is no such folder; it holds WIDER FACE's ground truth.\n"
            "Unpack eval_tools.zip of WIDER FACE into the data root, or choose --truth annotations "
            "to score against the annotations beside the pictures."
        )
    entries = parse_mat(folder / "wider_face_val.mat")
    counts = np.asarray([len(entry.numbers) for entry in entries], dtype=np.intp)
    rows = np.concatenate([entry.numbers[:, :4] for entry in entries])
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
    names = tuple(entry.name for entry in entries)
    counting = {subset: _mask(folder / f"wider_{subset}_val.mat", counts) for subset in SUBSETS}
    truth = Truth(
        "wider-val", names, counts, boxes, counting, len(names), empty_pictures_count=False
    )
    if truth.sha256 == OFFICIAL_SHA256:
        return truth
    logger.warning("%s differs from WIDER FACE's published ground truth", folder)
    return replace(truth, name="wider-val, changed")


def truth_of(pictures: PictureSet, folder: Path) -> Truth:
    """Return the official truth of validation pictures where its files are, else their annotations.

    Args:
        pictures: A split of ``folder``, or some of it.
        folder: A folder in WIDER FACE's layout.
    """
    is_official = pictures.name == "widerface-val" and (folder / GROUND_TRUTH).is_dir()
    return read_truth(folder) if is_official else Truth.of(pictures)


def _mask(file: Path, counts: npt.NDArray[np.intp]) -> Mask:
    """Which faces of all pictures a subset counts; its file lists them from 1, by picture."""
    events = load_mat(file, "gt_list")["gt_list"].ravel()
    lists = [cell.ravel().astype(np.intp) for event in events for cell in event.ravel()]
    if len(lists) != len(counts) or any(
        len(part) and not 1 <= part.min() <= part.max() <= count
        for part, count in zip(lists, counts, strict=True)
    ):
        raise DataError(
            f"{file}: its lists do not fit the boxes of wider_face_val.mat.\n"
            "Fetch the evaluation tools of WIDER FACE (eval_tools.zip) again and unpack them."
        )
    starts = np.cumsum(counts) - counts
    mask = np.zeros(counts.sum(), dtype=bool)
    mask[np.concatenate([part - 1 + start for part, start in zip(lists, starts, strict=True)])] = (
        True
    )
    return mask
