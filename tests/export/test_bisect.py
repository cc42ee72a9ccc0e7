"""Bisecting: the layer that was tampered with is the one that is named."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from slimface.deploy.pipeline import Picture, Pipeline, RawFaces
from slimface.deploy.runtimes import open_exported
from slimface.errors import UsageError
from slimface.export.bisect import bisect
from slimface.export.parity import on_one_canvas
from slimface.model.detector import Detector
from slimface.model.predictor import pipeline

TAMPERED = "base.m0.b2_1.0.res_layer.0"


@pytest.fixture
def picture() -> Picture:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_a_file_departs_nowhere_from_its_model(
    detector: Detector, raw_file: Path, picture: Picture
) -> None:
    found = bisect(pipeline(detector), open_exported(raw_file, threads=1), picture)
    assert found.departs_at == ""
    assert found.layers > 40
    assert "agree" in found.explain()


def test_the_first_wrong_layer_of_a_file_is_named(
    detector: Detector, raw_file: Path, picture: Picture, tmp_path: Path
) -> None:
    model = onnx.load(raw_file)
    path = "/detector/base/m0/b2_1/b2_1.0/res_layer/res_layer.0/Conv"
    node = next(one for one in model.graph.node if one.name == path)
    weight = next(one for one in model.graph.initializer if one.name == node.input[1])
    changed = numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name)
    weight.CopyFrom(changed)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(model.SerializeToString())
    found = bisect(pipeline(detector), open_exported(wrong, threads=1), picture)
    assert found.departs_at == TAMPERED
    assert found.agrees_until != TAMPERED
    assert found.gap is not None
    assert 0.01 < found.gap < 0.5
    assert TAMPERED in found.explain()


def test_the_first_layer_that_training_has_moved_is_named(
    detector: Detector, picture: Picture
) -> None:
    moved = copy.deepcopy(detector)
    with torch.no_grad():
        moved.get_submodule(TAMPERED).weight.mul_(1.1)
    assert bisect(pipeline(detector), pipeline(moved), picture).departs_at == TAMPERED


def test_models_of_other_layers_are_refused(
    detector: Detector, landmarked: Detector, picture: Picture
) -> None:
    with pytest.raises(UsageError, match="no layer of the same name"):
        bisect(pipeline(detector), pipeline(landmarked), picture)


def test_a_runtime_that_forgets_names_is_refused(detector: Detector, picture: Picture) -> None:
    def silent(images: np.ndarray) -> RawFaces:
        raise AssertionError("it must not run")

    other = Pipeline(detector.spec, silent, name="x", runtime="ncnn")
    with pytest.raises(UsageError, match="runs in ncnn, whose files do not keep the names"):
        bisect(pipeline(detector), other, picture)


def test_two_models_see_one_canvas(detector: Detector, landmarked: Detector) -> None:
    ours, theirs = pipeline(detector), pipeline(landmarked)
    theirs.canvas = (64, 96)
    assert on_one_canvas(ours, theirs)[0].canvas == (64, 96)
    ours.canvas = (64, 64)
    with pytest.raises(UsageError, match="64x64 only"):
        on_one_canvas(ours, theirs)
