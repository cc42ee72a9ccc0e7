"""The official ground truth of WIDER FACE's validation split, from its .mat files."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    file = folder / "wider_face_val.mat"
    cells = _read(file, "event_list", "file_list", "face_bbx_list")
    events = [_text(event) for event in cells["event_list"].ravel()]
    files = [[_text(name) for name in cell.ravel()] for cell in cells["file_list"].ravel()]
    boxes = [_corners(box, file) for box in _flat(cells["face_bbx_list"])]
    names = tuple(
        f"{event}/{name}.jpg" for event, group in zip(events, files, strict=True) for name in group
    )
    if len(boxes) != len(names):
        raise DataError(f"{file}: {len(names)} pictures but boxes of {len(boxes)}.\n{_AGAIN}")
    counts = np.asarray([len(part) for part in boxes], dtype=np.intp)
    counting = {subset: _mask(folder / f"wider_{subset}_val.mat", counts) for subset in SUBSETS}
    stacked = np.concatenate(boxes)
    truth = Truth(
        "wider-val", names, counts, stacked, counting, len(names), empty_pictures_count=False
    )
    if truth.sha256 == OFFICIAL_SHA256:
        return truth
    logger.warning("%s differs from WIDER FACE's published ground truth", folder)
    return replace(truth, name="wider-val, changed")


_AGAIN = "Fetch the evaluation tools of WIDER FACE (eval_tools.zip) again and unpack them."


def _read(file: Path, *variables: str) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingError(
            "Reading WIDER FACE's .mat files needs scipy, which is not installed.\n"
            "Install it with: pip install 'slimface[train]'"
        ) from error
    if not file.is_file():
        raise MissingError(
            f"{file}: there is no such file; it is part of WIDER FACE's ground truth.\n"
            "Unpack eval_tools.zip of WIDER FACE into the data root, or choose --truth annotations "
            "to score against the annotations beside the pictures."
        )
    try:
        cells: dict[str, Any] = loadmat(file, variable_names=variables)
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError) as error:
        raise DataError(f"{file}: not a readable MATLAB file ({error}).\n{_AGAIN}") from error
    for name in variables:
        if name not in cells:
            raise DataError(f"{file}: it has no variable {name!r}.\n{_AGAIN}")
    return cells


def _flat(events: npt.NDArray[np.object_]) -> Iterator[Any]:
    """The cells of all pictures, event by event."""
    for event in events.ravel():
        yield from event.ravel()


def _text(cell: Any) -> str:
    while isinstance(cell, np.ndarray):
        cell = cell.ravel()[0]
    return str(cell)


def _corners(box: Any, file: Path) -> npt.NDArray[np.float64]:
    rows = np.asarray(box, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise DataError(f"{file}: boxes of shape {rows.shape}, not (n, 4).\n{_AGAIN}")
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)


def _mask(file: Path, counts: npt.NDArray[np.intp]) -> Mask:
    """Which faces of all pictures a subset counts; its file lists them from 1, by picture."""
    lists = [
        np.asarray(cell).ravel().astype(np.intp)
        for cell in _flat(_read(file, "gt_list")["gt_list"])
    ]
    if len(lists) != len(counts) or any(
        len(part) and not 1 <= part.min() <= part.max() <= count
        for part, count in zip(lists, counts, strict=True)
    ):
        raise DataError(f"{file}: its lists do not fit the boxes of wider_face_val.mat.\n{_AGAIN}")
    starts = np.cumsum(counts) - counts
    mask = np.zeros(counts.sum(), dtype=bool)
    mask[np.concatenate([part - 1 + start for part, start in zip(lists, starts, strict=True)])] = (
        True
    )
    return mask
