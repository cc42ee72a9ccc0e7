from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.compress.distill.step import PseudoLabel, _Joined
from slimface.errors import MissingError, UsageError
from slimface.loading import load
from slimface.step import Context
from slimface.train.schedule import Schedule
from slimface.train.step import Train
from tests.conftest import _tiny_onnx

TRAIN = Train(schedule=Schedule(epochs=1, batch_size=1))


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """One picture with a bright cell, which the tiny detector takes for a face, and one without."""
    folder = tmp_path / "street"
    (folder / "a").mkdir(parents=True)
    dark = np.zeros((32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "dark.png"), dark)
    dark[8:12, 16:20] = 255
    cv2.imwrite(str(folder / "a" / "bright.png"), dark)
    return folder


def test_what_the_teacher_finds_is_learnt_from_and_kept(street: Path, tmp_path: Path) -> None:
    teacher = _tiny_onnx(tmp_path / "tiny.onnx", decoded=False)
    step = PseudoLabel(teacher=str(teacher), pictures=str(street), train=TRAIN)
    context = Context(folder=tmp_path)
    found = step.annotate(load(teacher), context)
    assert [one.name for one in found] == ["unlabelled/a/bright.png"]
    assert len(_Joined(None, found).pictures("train")) == 1
    assert not len(_Joined(None, found).pictures("val"))
    kept = (tmp_path / "pseudo-labels.jsonl").read_text().splitlines()
    # Cut off by a kill: the picture is looked at again, and no other.
    (tmp_path / "pseudo-labels.jsonl").write_text(kept[0] + "\n" + kept[1][:9])
    again = step.annotate(load(teacher), context)
    assert again.fingerprint() == found.fingerprint()


def test_no_pictures_and_no_faces_are_refused(street: Path, tmp_path: Path) -> None:
    teacher = load(_tiny_onnx(tmp_path / "tiny.onnx", decoded=False))
    context = Context(folder=tmp_path)
    options = {"teacher": "tiny", "train": TRAIN}
    with pytest.raises(MissingError, match="no folder"):
        PseudoLabel(pictures=str(tmp_path / "no"), **options).annotate(teacher, context)
    (street / "a" / "bright.png").unlink()
    with pytest.raises(UsageError, match="finds no face"):
        PseudoLabel(pictures=str(street), **options).annotate(teacher, context)
