import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import read_spec
from slimface.deploy.pipeline import Picture, Pipeline, Settings
from slimface.deploy.runtimes import PROVENANCE_KEY, open_exported
from slimface.errors import ParityError, RecipeError
from slimface.export.onnx import Onnx
from slimface.model.detector import Detector, RawTensors
from slimface.model.eresfd import naver
from slimface.model.predictor import TorchNetwork
from slimface.model.profile import profile


def _run(path: Path, images: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"images": images.numpy()})
    return outputs


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 333, 517), (3, 64, 40), (2, 96, 128)])
def test_the_file_gives_the_numbers_of_torch_at_any_size(
    detector: Detector, raw_file: Path, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    images = 100 * torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = detector(images)
    logits, offsets = _run(raw_file, images)
    assert logits.shape == (batch, detector.spec.anchors.count(height, width))
    np.testing.assert_allclose(logits, wanted.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(offsets, wanted.offsets.numpy(), atol=1e-4)


@pytest.mark.parametrize("size", [(96, 128), (131, 77)])
def test_boxes_decoded_in_the_graph_are_those_decoded_outside(
    detector: Detector, raw_file: Path, decoded_file: Path, size: tuple[int, int]
) -> None:
    images = 100 * torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    logits, offsets = _run(raw_file, images)
    scores, boxes = _run(decoded_file, images)
    anchors = detector.spec.anchors.anchors(*size)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(
        boxes, detector.spec.codec.decode(offsets, anchors), rtol=1e-4, atol=1e-2
    )


def test_all_three_find_the_same_faces(
    detector: Detector,
    raw_file: Path,
    decoded_file: Path,
    pictures: list[tuple[str, Picture]],
) -> None:
    ours = Pipeline(detector.spec, TorchNetwork(detector))
    for _, picture in pictures:
        wanted = ours.detect(picture, Settings(score_floor=0.3))
        assert len(wanted) > 3
        for path in (raw_file, decoded_file):
            found = open_exported(path, threads=1).detect(picture, Settings(score_floor=0.3))
            np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.02)
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_the_spec_comes_back_from_the_metadata(detector: Detector, raw_file: Path) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(raw_file).metadata_props}
    assert read_spec(metadata["slimface.spec"], where="test") == detector.spec
    assert metadata["slimface.outputs"] == "raw"
    provenance = json.loads(metadata[PROVENANCE_KEY])
    assert provenance["parent"] == "nobody"
    assert provenance["export"]["opset"] == 18
    cost = profile(detector, 96, 128)
    assert provenance["cost"] == {
        "parameters": cost.parameters, "macs": cost.macs, "height": 96, "width": 128,
    }  # fmt: skip


def test_the_file_is_complete_lean_and_of_the_opset_asked_for(raw_file: Path) -> None:
    model = onnx.load(raw_file, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not model.graph.value_info
    operators = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in operators
    assert [path.name for path in raw_file.parent.iterdir()] == ["tiny.onnx"]


def test_a_file_of_fixed_size_sees_every_picture_on_its_canvas(
    detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "fixed.onnx"
    Onnx(height=64, width=96, dynamic=False, decode=True).write(detector, path)
    fixed = open_exported(path)
    assert fixed.canvas == (64, 96)
    ours = Pipeline(detector.spec, TorchNetwork(detector), canvas=(64, 96))
    rng = np.random.default_rng(0)
    for size in ((64, 96), (40, 30), (128, 96), (70, 333)):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        assert ours.prepare([picture]).shape == (1, 3, 64, 96)
        wanted = ours.detect(picture, Settings(score_floor=0.3))
        found = fixed.detect(picture, Settings(score_floor=0.3))
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-3, atol=0.05)


def test_a_model_that_only_works_at_one_size_is_found_out(
    detector: Detector, tmp_path: Path
) -> None:
    class Frozen(Detector):
        """Remembers the size it was traced with, as a careless reshape does."""

        def __init__(self, inner: Detector) -> None:
            super().__init__(inner.spec)
            self.inner = inner

        def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows, columns = (int(side) for side in images.shape[2:])
            same = torch.nn.functional.interpolate(images, size=(rows, columns))
            return self.inner.maps(same)

        def read(self, maps: tuple[torch.Tensor, ...]) -> RawTensors:
            return self.inner.read(maps)

    with pytest.raises(ParityError, match="At 333x517, logits has shape"):
        Onnx(height=64, width=64).write(Frozen(detector), tmp_path / "x.onnx")


def test_exporting_changes_nothing_in_the_detector(detector: Detector, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.train()
    try:
        Onnx(height=64, width=64).write(detector, tmp_path / "x.onnx")
        assert detector.training
    finally:
        detector.eval()
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_same_model_gives_the_same_bytes(
    detector: Detector, raw_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "again.onnx"
    Onnx(height=96, width=128).write(detector, path, provenance={"parent": "nobody"})
    assert path.read_bytes() == raw_file.read_bytes()


def test_landmarks_leave_the_graph_and_find_back_to_the_picture(
    landmarked: Detector, tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    wanted = Pipeline(landmarked.spec, TorchNetwork(landmarked)).detect(
        picture, Settings(score_floor=0.3)
    )
    assert wanted.landmarks is not None
    assert len(wanted)
    for decode in (False, True):
        path = tmp_path / f"{decode}.onnx"
        Onnx(height=64, width=96, decode=decode).write(landmarked, path)
        found = open_exported(path).detect(picture, Settings(score_floor=0.3))
        np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.05)


class Toy(Detector):
    """One anchor a cell, and one wide layer that is used four times."""

    head_names = ("head",)

    def __init__(self) -> None:
        level = AnchorLevel(stride=4, sizes=(16.0,))
        super().__init__(naver().model_copy(update={"anchors": AnchorGrid(levels=(level,))}))
        self.stem = torch.nn.Conv2d(3, 32, 3, stride=4, padding=1)
        self.again = torch.nn.Sequential(
            torch.nn.Conv2d(32, 32, 3, padding=1, bias=False), torch.nn.BatchNorm2d(32)
        )
        self.head = torch.nn.Conv2d(32, 5, 1)

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(images)
        for _ in range(4):
            x = self.again(x).relu()
        return (self.head(x),)

    def read(self, maps: tuple[torch.Tensor, ...]) -> RawTensors:
        rows = maps[0].flatten(2).transpose(1, 2)
        return RawTensors(rows[..., 0], rows[..., 1:])


def test_weights_that_are_used_four_times_are_stored_once(tmp_path: Path) -> None:
    toy = Toy().eval()
    Onnx(height=64, width=64).write(toy, tmp_path / "x.onnx")
    weights = 4 * sum(parameter.numel() for parameter in toy.parameters())
    assert (tmp_path / "x.onnx").stat().st_size < 1.3 * weights


@pytest.mark.slow
def test_the_newer_exporter_of_torch_writes_a_file_as_good(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    Onnx(height=64, width=64, exporter="dynamo", decode=True).write(Toy().eval(), path)
    assert onnx.load(path).opset_import[0].version == 18


def test_an_opset_nobody_writes_is_refused() -> None:
    with pytest.raises(RecipeError, match="opset"):
        Onnx.parse({"opset": 11}, where="test")


@pytest.mark.parametrize("opset", [17, 20])
def test_the_oldest_and_newest_opset_are_written(
    detector: Detector, tmp_path: Path, opset: int
) -> None:
    path = tmp_path / "x.onnx"
    Onnx(height=64, width=64, opset=opset, decode=True).write(detector, path)
    assert onnx.load(path).opset_import[0].version == opset
