import json

import pytest

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import SPEC_VERSION, Architecture, DetectorSpec, Preprocess, read_spec
from slimface.errors import CheckpointError, RecipeError

SPEC = DetectorSpec(
    name="tiny",
    architecture=Architecture(name="tiny", options={"width": 8, "sizes": (1, 2)}),
    preprocess=Preprocess(mean=(123, 117, 104)),
    anchors=AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(16.0,)),)),
)


def test_a_spec_is_read_back_as_written():
    assert read_spec(SPEC.model_dump_json(), where="x") == SPEC


def test_a_spec_of_a_newer_version_asks_for_an_update():
    newer = json.dumps({**SPEC.model_dump(), "version": SPEC_VERSION + 1, "what_is_this": 3})
    with pytest.raises(
        CheckpointError, match=f"model.onnx: its spec has version {SPEC_VERSION + 1}"
    ):
        read_spec(newer, where="model.onnx")


@pytest.mark.parametrize("version", ["two", 1.5, None])
def test_a_version_that_is_no_number_is_refused(version):
    with pytest.raises(CheckpointError, match="version"):
        read_spec(json.dumps({**SPEC.model_dump(), "version": version}), where="x")


@pytest.mark.parametrize("text", ["", "no json", "[]", "3", b"\xff\xfe"])
def test_damaged_text_is_no_spec(text):
    with pytest.raises(CheckpointError, match="x: the spec is not a JSON object"):
        read_spec(text, where="x")


def test_a_misspelt_field_is_named():
    broken = {**SPEC.model_dump(), "preproces": {}}
    with pytest.raises(RecipeError, match="did you mean 'preprocess'"):
        read_spec(json.dumps(broken), where="x")
