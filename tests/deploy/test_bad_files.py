"""Exported files that are whole, and wrong: of another task, of another spec, of absurd size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, CascadeSpec, ClassifierSpec, DetectorSpec, Preprocess
from slimface.deploy.runtimes import open_class_file, open_exported
from slimface.errors import CheckpointError, UsageError

PICTURE = np.full((32, 48, 3), 255, np.uint8)


def _changed(source: Path, path: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(source)
    change(model)
    onnx.save(model, path)
    return path


def _says(model: Any, **said: str) -> None:
    known = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    fresh = {f"slimface.{key}": value for key, value in said.items()}
    helper.set_model_props(model, known | fresh)


def _spec(**other: Any) -> DetectorSpec:
    grid = AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(8.0,)),))
    known = {"name": "other", "architecture": Architecture(name="tiny"), "anchors": grid}
    return DetectorSpec(**known | {"preprocess": Preprocess()} | other)


def test_a_classifier_is_no_detector(tiny_onnx: Path, tmp_path: Path) -> None:
    spec = ClassifierSpec(name="cats", architecture=Architecture(name="x"), classes=("a", "b"))
    text = spec.model_dump_json()
    path = _changed(
        tiny_onnx, tmp_path / "x.onnx", lambda m: _says(m, spec=text, outputs="classes")
    )
    with pytest.raises(UsageError, match=r"x\.onnx is a classifier.*\n.*slimface classify"):
        open_exported(path)
    with pytest.raises(UsageError, match="is a detector"):
        open_class_file(tiny_onnx)


def test_a_net_of_a_cascade_is_no_detector(tiny_onnx: Path, tmp_path: Path) -> None:
    spec = CascadeSpec(
        name="mtcnn.pnet", architecture=Architecture(name="mtcnn.pnet"), preprocess=Preprocess()
    )
    text = spec.model_dump_json()
    path = _changed(tiny_onnx, tmp_path / "pnet.onnx", lambda m: _says(m, spec=text))
    with pytest.raises(UsageError, match=r"pnet\.onnx is one net of a cascade.*\n.*folder"):
        open_exported(path)


def test_a_spec_of_another_detector_is_noticed_at_the_first_picture(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    grid = AnchorGrid(levels=(AnchorLevel(stride=8, sizes=(16.0,)),))
    text = _spec(anchors=grid).model_dump_json()
    path = _changed(tiny_onnx, tmp_path / "x.onnx", lambda m: _says(m, spec=text))
    with pytest.raises(CheckpointError, match="answers for 96 anchors, its spec has 24"):
        open_exported(path).detect(PICTURE)


def test_a_spec_that_breaks_a_rule_is_refused_when_the_file_is_opened(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    text = _spec().model_dump_json().replace('"stride":4', '"stride":0')
    path = _changed(tiny_onnx, tmp_path / "x.onnx", lambda m: _says(m, spec=text))
    with pytest.raises(ValueError, match=r"x\.onnx has 1 mistake(.|\n)*stride"):
        open_exported(path)


def test_a_graph_that_asks_for_terabytes_is_an_error_and_not_the_end(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    def blow_up(model: Any) -> None:
        graph = model.graph
        size = np.asarray([10**7, 10**7], np.int64)
        graph.initializer.append(numpy_helper.from_array(size, "absurd"))
        [logits] = [node for node in graph.node if "logits" in node.output]
        logits.output[0] = "sane"
        graph.node.append(helper.make_node("ConstantOfShape", ["absurd"], ["filled"]))
        graph.node.append(helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["sane", "sum"], ["logits"]))
        for node in graph.node:
            if node.op_type == "Unsqueeze":
                node.input[0] = "sane"

    path = _changed(tiny_onnx, tmp_path / "x.onnx", blow_up)
    with pytest.raises(CheckpointError, match=r"x\.onnx"):
        open_exported(path).detect(PICTURE)


def test_a_tensor_that_claims_more_than_it_holds_is_refused(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    def claim(model: Any) -> None:
        model.graph.initializer[0].dims[0] = 2**40

    path = _changed(tiny_onnx, tmp_path / "x.onnx", claim)
    with pytest.raises(CheckpointError, match=r"x\.onnx: ONNX Runtime cannot read it"):
        open_exported(path)
