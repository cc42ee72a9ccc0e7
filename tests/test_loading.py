import numpy as np
import pytest

import slimface
from slimface.deploy.pipeline import Settings
from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.model import checkpoint
from slimface.model.build import build
from slimface.model.eresfd import naver


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    detector = build(naver("tiny", width=4), seed=0)
    path = tmp_path_factory.mktemp("models") / "small.v0.25.safetensors"
    checkpoint.save(detector, path)
    return path, detector


def test_a_checkpoint_is_opened_with_torch(saved):
    path, detector = saved
    pipeline = slimface.load(path, threads=1)
    assert (pipeline.name, pipeline.runtime) == ("small.v0.25", "torch")
    assert pipeline.spec == detector.spec
    assert pipeline.fingerprint() == checkpoint.fingerprint(detector)
    everything = pipeline.detect(np.zeros((20, 30, 3), np.uint8), Settings(score_floor=0))
    assert len(everything) > 0


def test_an_exported_file_is_opened_without_its_name_mattering(tiny_onnx):
    assert slimface.load(str(tiny_onnx)).runtime == "onnxruntime"


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("eresfdd", UsageError, "did you mean eresfd"),
        ("retinaface0.25", UsageError, "no model 'retinaface0.25' in the zoo"),
        ("a/b", UsageError, "is not a model"),
        ("none.safetensors", MissingError, "none.safetensors"),
        ("none.onnx", MissingError, "none.onnx"),
        ("weights.pth", CheckpointError, "pickled"),
        ("weights.PTH", CheckpointError, "pickled"),
        ("weights.pt", MissingError, "no model file"),
    ],
)
def test_what_cannot_be_opened_is_explained(source, error, words):
    with pytest.raises(error, match=words):
        slimface.load(source)


def test_an_exported_file_runs_on_the_processor_only(tiny_onnx):
    with pytest.raises(UsageError, match="not on cuda"):
        slimface.load(tiny_onnx, device="cuda")


@pytest.mark.data
def test_published_weights_find_the_faces_of_a_real_picture(weights_root, wider_root, monkeypatch):
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    name = "0--Parade/0_Parade_marchingband_1_104.jpg"
    faces = slimface.load("eresfd", threads=1).detect(wider_root / "WIDER_val" / "images" / name)
    assert 8 <= len(faces) <= 20
    assert faces.scores[0] > 0.95
