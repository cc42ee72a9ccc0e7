"""What spec.json of a bundle says."""

import json
from pathlib import Path

import pytest

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.bundle import Bundle, ModelFile, bundle_schema, read_bundle
from slimface.core.spec import Architecture, DetectorSpec, Preprocess
from slimface.errors import CheckpointError, RecipeError

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "reference" / "spec.schema.json"

SPEC = DetectorSpec(
    name="tiny",
    architecture=Architecture(name="tiny"),
    preprocess=Preprocess(),
    anchors=AnchorGrid(levels=(AnchorLevel(stride=8, sizes=(16,)),)),
)
FILE = ModelFile(
    path="models/model.onnx", format="onnx", runtime="onnxruntime", precision="float32"
)
BUNDLE = Bundle(name="tiny", spec=SPEC, files=(FILE,))


def changed(**fields: object) -> str:
    return json.dumps(BUNDLE.model_dump(mode="json") | fields)


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == bundle_schema(), (
        "write docs/reference/spec.schema.json anew from slimface.core.bundle.bundle_schema"
    )


def test_the_schema_says_every_rule_and_what_it_means():
    rules = bundle_schema()["$defs"]["Rules"]["properties"]
    assert set(rules) > {"resize", "rounding", "padding", "decoding", "activation", "suppression"}
    assert all("const" in rule and "description" in rule for rule in rules.values())


def test_what_is_written_is_read():
    assert read_bundle(BUNDLE.model_dump_json(), where="spec.json") == BUNDLE


@pytest.mark.parametrize("path", ["/etc/passwd", "../model.onnx", "models/../../x", "a\\..\\b", ""])
def test_a_path_never_leads_out_of_the_bundle(path):
    with pytest.raises(RecipeError, match="leads out"):
        read_bundle(changed(files=[FILE.model_dump() | {"path": path}]), where="spec.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not the spec of a bundle"),
        ("[1]", "not the spec of a bundle"),
        ('{"version": "one"}', "not the spec of a bundle"),
        ('{"version": true}', "not the spec of a bundle"),
        (changed(version=99), "has version 99"),
    ],
)
def test_what_is_no_bundle_is_refused(text, says):
    with pytest.raises(CheckpointError, match=says):
        read_bundle(text, where="spec.json")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"files": []}, "files"),
        ({"licens": "MIT"}, "did you mean 'licence'"),
        ({"rules": {"resize": "nearest"}}, "resize"),
        ({"spec": {"task": "classification"}}, "classification"),
    ],
)
def test_a_broken_rule_is_named(fields, says):
    with pytest.raises(RecipeError, match=says):
        read_bundle(changed(**fields), where="spec.json")
