from pathlib import Path

import numpy as np
import onnx
import pytest

from slimface.bench.rivals import open_contestant
from slimface.core.boxes import overlaps
from slimface.data.drawn import Drawn, draw
from slimface.deploy.pipeline import Settings
from slimface.errors import CheckpointError, MissingError


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return draw(Drawn(count=1, height_px=480, width_px=640), 3)[0]


@pytest.mark.data
def test_yunet_of_its_publisher_finds_what_our_yunet_finds(
    weights_root: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights: read from the layout of the file, and built from our module."""
    from slimface.loading import load

    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    rival = open_contestant(str(weights_root / "peers/yunet_n_dynamic.onnx"), threads=1)
    settings = Settings(score_floor=0.1)
    theirs, ours = rival.detect(portrait, settings), load("yunet-n").detect(portrait, settings)
    assert len(ours) > 0
    np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.1)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    np.testing.assert_allclose(theirs.landmarks, ours.landmarks, atol=0.1)


@pytest.mark.data
def test_ultra_light_finds_real_faces_in_the_pixels_of_the_picture(
    weights_root: Path, wider_root: Path
) -> None:
    from slimface.data.widerface import read_widerface
    from slimface.deploy.media import read_picture

    rival = open_contestant(str(weights_root / "peers/rfb640.onnx"), threads=1)
    assert rival.canvas == (480, 640)
    pictures = read_widerface(wider_root, "val", partial=True)
    one = next(p for p in pictures if len(p.faces) == 1 and np.ptp(p.faces.boxes[0, ::2]) > 100)
    found = rival.detect(read_picture(one.path))
    assert overlaps(one.faces.boxes, found.boxes[:1]).item() > 0.5


def test_our_own_files_are_opened_as_ever(tiny_onnx: Path) -> None:
    assert open_contestant(str(tiny_onnx)).spec.name == "tiny"


def test_a_file_of_an_unknown_layout_is_refused_with_the_layouts_that_are_known(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    model = onnx.load(tiny_onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(CheckpointError, match=r"of no rival that is known \(yunet: cls_8.*ultra-l"):
        open_contestant(str(tmp_path / "stranger.onnx"))


def test_a_rival_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"rfb\.onnx"):
        open_contestant(str(tmp_path / "rfb.onnx"))


def test_a_rival_of_another_spec_is_refused_when_it_answers(
    tiny_decoded_onnx: Path, tmp_path: Path
) -> None:
    """Outputs called scores and boxes, but not those of Ultra-Light."""
    model = onnx.load(tiny_decoded_onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "disguised.onnx")
    rival = open_contestant(str(tmp_path / "disguised.onnx"))
    with pytest.raises(CheckpointError, match="no scores of two classes"):
        rival.detect(np.zeros((64, 64, 3), np.uint8))
