"""Aligned faces of published detectors: those of the exported file are those of torch."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.deploy.align import align
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Settings
from slimface.export.gate import export
from slimface.export.onnx import Onnx
from slimface.loading import load
from slimface.model import zoo
from slimface.model.predictor import pipeline
from tests.model.real_faces import group_picture


@pytest.mark.data
@pytest.mark.parametrize(("name", "file"), [("yunet-n", "yunet.onnx"), ("mtcnn", "cascade")])
def test_aligned_faces_of_the_onnx_file_are_those_of_torch(
    weights_root: Path,
    wider_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    file: str,
) -> None:
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    picture = read_picture(group_picture(wider_root).path)
    sides = np.array(picture.shape[1::-1]) * 320 // max(picture.shape)
    picture = cv2.resize(picture, sides.tolist(), interpolation=cv2.INTER_AREA)
    detector = zoo.load(name)
    export(detector, tmp_path / file, Onnx(), pictures=[("group", picture)])
    wanted = pipeline(detector).detect(picture, Settings())
    found = load(tmp_path / file).detect(picture, Settings())
    assert len(found) == len(wanted) >= 5
    assert found.landmarks is not None and wanted.landmarks is not None
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.1)
    for ours, theirs in zip(found.landmarks, wanted.landmarks, strict=True):
        apart = cv2.absdiff(align(picture, ours, 112), align(picture, theirs, 112))
        assert apart.mean() < 1
        # Eyes stand where the template has them: left of right, above the mouth.
        assert theirs[0, 0] < theirs[1, 0] and theirs[:2, 1].max() < theirs[3:, 1].min()
