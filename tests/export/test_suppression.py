from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.deploy.pipeline import Picture, Settings
from slimface.deploy.runtimes import OUTPUTS_KEY, open_exported
from slimface.errors import CheckpointError, RecipeError, UsageError
from slimface.export.onnx import Onnx
from slimface.model.detector import Detector

SIZE = {"height": 96, "width": 128}


@pytest.fixture(scope="module")
def faces_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "tiny.onnx"
    Onnx(**SIZE, decode=True, suppress=True).write(detector, path)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(score_floor=0.05),
        Settings(score_floor=0.3, nms_overlap=0.6),
        Settings(score_floor=0.3, cap=3),
        Settings(score_floor=0.1, pre_nms=40),
        Settings(score_floor=1),
    ],
    ids=["spec", "low floor", "overlap", "cap", "pre_nms", "nothing"],
)
def test_the_graph_keeps_the_boxes_that_the_pipeline_keeps(
    raw_file: Path, faces_file: Path, pictures: list[tuple[str, Picture]], settings: Settings
) -> None:
    outside, inside = open_exported(raw_file, threads=1), open_exported(faces_file, threads=1)
    for _, picture in pictures:
        wanted, found = outside.detect(picture, settings), inside.detect(picture, settings)
        assert len(found) == len(wanted)
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.02)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)


def test_landmarks_follow_their_boxes(
    landmarked: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    files = [tmp_path / "raw.onnx", tmp_path / "faces.onnx"]
    Onnx(**SIZE).write(landmarked, files[0])
    Onnx(**SIZE, decode=True, suppress=True).write(landmarked, files[1])
    outside, inside = (open_exported(file, threads=1) for file in files)
    settings = Settings(score_floor=0.2, cap=20)
    wanted, found = (one.detect(pictures[0][1], settings) for one in (outside, inside))
    assert len(wanted) > 1
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.05)


def test_pictures_of_a_batch_keep_their_own_faces(faces_file: Path) -> None:
    pipeline = open_exported(faces_file, threads=1)
    pair = list(np.random.default_rng(3).integers(0, 256, (2, 64, 80, 3), dtype=np.uint8))
    settings = Settings(score_floor=0.3)
    together = pipeline.detect_batch(pair, settings)
    alone = [pipeline.detect(one, settings) for one in pair]
    assert len(alone[0]) and len(alone[1])
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.02)


def test_any_program_gets_faces_from_the_picture_alone(
    faces_file: Path, detector: Detector, pictures: list[tuple[str, Picture]]
) -> None:
    """What stands in for the floor, the overlap and the caps is what the spec says."""
    session = onnxruntime.InferenceSession(faces_file, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images"]
    pipeline = open_exported(faces_file, threads=1)
    images = pipeline.prepare([pictures[0][1]])
    scores, boxes = session.run(["scores", "boxes"], {"images": images})
    found = pipeline.detect(pictures[0][1])
    np.testing.assert_array_equal(scores, found.scores)
    np.testing.assert_array_equal(boxes, found.boxes)
    assert scores.min() >= detector.spec.postprocess.score_floor


def test_half_precision_and_one_size_suppress_as_well(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    path = tmp_path / "half.onnx"
    Onnx(**SIZE, precision="float16", dynamic=False, decode=True, suppress=True).write(
        detector, path
    )
    assert len(open_exported(path, threads=1).detect(pictures[0][1], Settings(score_floor=0.3)))


def test_a_graph_without_its_limits_is_refused(faces_file: Path, tmp_path: Path) -> None:
    model = onnx.load(faces_file)
    [cap] = [one for one in model.graph.input if one.name == "cap"]
    model.graph.input.remove(cap)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="absent: cap"):
        open_exported(tmp_path / "x.onnx")


def test_logits_that_claim_to_be_faces_are_refused(raw_file: Path, tmp_path: Path) -> None:
    model = onnx.load(raw_file)
    [said] = [one for one in model.metadata_props if one.key == OUTPUTS_KEY]
    said.value = "faces"
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="pictures"):
        open_exported(tmp_path / "x.onnx")


def test_what_is_not_decoded_cannot_be_suppressed() -> None:
    with pytest.raises(RecipeError, match="needs decoding"):
        Onnx.parse({"suppress": True}, where="test")


def test_other_formats_say_that_they_cannot() -> None:
    ran = CliRunner().invoke(app, ["export", "eresfd", "--format", "ncnn", "--nms"])
    assert isinstance(ran.exception, UsageError)
    assert "--format onnx" in str(ran.exception)
