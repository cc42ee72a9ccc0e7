import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimface.deploy.pipeline import DecodedFaces, RawFaces
from slimface.deploy.runtimes import OnnxNetwork, open_exported
from slimface.errors import CheckpointError, MissingError


def one_face() -> np.ndarray:
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    picture[16:20, 24:28] = 255
    return picture


def changed(source, target, change):
    model = onnx.load(source)
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def without_metadata(model):
    del model.metadata_props[:]


def set_metadata(key, value):
    def change(model):
        helper.set_model_props(
            model, {**{p.key: p.value for p in model.metadata_props}, key: value}
        )

    return change


def test_a_file_with_raw_outputs_detects(tiny_onnx):
    pipeline = open_exported(tiny_onnx, threads=1)
    faces = pipeline.detect(one_face())
    assert faces.boxes.tolist() == [[22, 14, 30, 22]]
    assert faces.scores[0] > 0.99
    assert (pipeline.name, pipeline.runtime) == ("tiny", "onnxruntime")
    assert pipeline.fingerprint() == hashlib.sha256(tiny_onnx.read_bytes()).hexdigest()


def test_a_file_with_decoded_outputs_detects(tiny_decoded_onnx):
    faces = open_exported(tiny_decoded_onnx).detect(one_face())
    assert faces.boxes.tolist() == [[2, 3, 22, 33]]


def test_networks_say_what_they_give(tiny_onnx, tiny_decoded_onnx):
    images = np.zeros((2, 3, 9, 13), dtype=np.float32)
    raw, decoded = (OnnxNetwork(path)(images) for path in (tiny_onnx, tiny_decoded_onnx))
    assert isinstance(raw, RawFaces)
    assert raw.logits.shape == (2, 12)
    assert isinstance(decoded, DecodedFaces)
    assert decoded.boxes.shape == (2, 12, 4)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no model file"):
        open_exported(tmp_path / "none.onnx")


@pytest.mark.parametrize("keep", [0, 1, 100, 500])
def test_a_truncated_file_is_refused(tiny_onnx, tmp_path, keep):
    path = tmp_path / "cut.onnx"
    path.write_bytes(tiny_onnx.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.onnx: "):
        open_exported(path)


def test_something_else_named_onnx_is_refused(tmp_path):
    path = tmp_path / "song.onnx"
    path.write_bytes(b"ID3" + bytes(2000))
    with pytest.raises(CheckpointError, match="cannot read it"):
        open_exported(path)


def test_a_model_of_others_is_refused_with_the_rule(tiny_onnx, tmp_path):
    path = changed(tiny_onnx, tmp_path / "foreign.onnx", without_metadata)
    with pytest.raises(CheckpointError, match=r"slimface\.spec.*\n.*slimface export"):
        open_exported(path)


def test_unknown_outputs_are_refused(tiny_onnx, tmp_path):
    path = changed(tiny_onnx, tmp_path / "x.onnx", set_metadata("slimface.outputs", "drawn"))
    with pytest.raises(CheckpointError, match="is 'drawn'"):
        open_exported(path)


def test_outputs_that_are_not_there_are_refused(tiny_onnx, tmp_path):
    path = changed(tiny_onnx, tmp_path / "x.onnx", set_metadata("slimface.outputs", "decoded"))
    with pytest.raises(CheckpointError, match="scores, boxes; this one has 1 and logits, offsets"):
        open_exported(path)


def test_a_spec_of_a_newer_slimface_is_refused(tiny_onnx, tmp_path):
    path = changed(tiny_onnx, tmp_path / "x.onnx", set_metadata("slimface.spec", '{"version": 99}'))
    with pytest.raises(CheckpointError, match="version 99"):
        open_exported(path)


def test_tensors_in_other_files_are_refused(tiny_onnx, tmp_path):
    def move_out(model):
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"

    path = changed(tiny_onnx, tmp_path / "x.onnx", move_out)
    with pytest.raises(CheckpointError, match="tensors in other files, which is refused"):
        open_exported(path)


def test_a_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("slimface.deploy.runtimes.description.MAX_MODEL_BYTES", 10)
    path = tmp_path / "large.onnx"
    path.write_bytes(bytes(11))
    with pytest.raises(CheckpointError, match="11 bytes"):
        open_exported(path)


def test_a_size_the_file_was_not_made_for_is_explained(tiny_onnx, tmp_path):
    def fix_size(model):
        shape = model.graph.input[0].type.tensor_type.shape
        for dimension, value in zip(shape.dim, (1, 3, 40, 60), strict=True):
            dimension.ClearField("dim_param")
            dimension.dim_value = value

    pipeline = open_exported(changed(tiny_onnx, tmp_path / "fixed.onnx", fix_size))
    assert len(pipeline.detect(one_face())) == 1
    with pytest.raises(CheckpointError, match="dynamic height and width"):
        pipeline.detect(one_face()[:20])
