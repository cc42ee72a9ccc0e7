"""An exported cascade: three files and the rules, opened as one detector; what is amiss is said."""

import json
import shutil

import numpy as np
import pytest

from slimface.core.spec import CascadeSpec
from slimface.data.drawn import Drawn, draw
from slimface.deploy.cascade import Cascade
from slimface.deploy.pipeline import RawFaces
from slimface.deploy.runtimes.cascade import OneByOne
from slimface.deploy.runtimes.tiles import Tiled
from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.export.formats import format_named
from slimface.export.gate import export
from slimface.export.onnx import Onnx
from slimface.loading import load
from slimface.model import mtcnn
from slimface.model.build import build
from slimface.model.predictor import TorchNetwork, pipeline
from tests.export.cascades import lively_cascade


@pytest.fixture(scope="module")
def lively():
    return lively_cascade()


@pytest.fixture(scope="module")
def pictures():
    spec = Drawn(count=2, height_px=90, width_px=120, seed=2, portrait_share=0)
    return [(str(i), draw(spec, i)[0]) for i in range(2)]


@pytest.fixture(scope="module")
def folder(lively, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "cascade"
    report = export(lively, path, Onnx(), pictures=pictures)
    assert report.agrees and report.faces > 0
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_the_folder_finds_what_the_nets_in_torch_find(folder, lively, pictures):
    files = {path.name for path in folder.iterdir()}
    assert {"pnet.onnx", "rnet.onnx", "onet.onnx", "spec.json"} <= files
    opened = load(folder)
    assert isinstance(opened, Cascade)
    assert (opened.name, opened.runtime) == ("cascade", "onnxruntime")
    for _, picture in pictures:
        ours, theirs = pipeline(lively).detect(picture), opened.detect(picture)
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.01)
        np.testing.assert_allclose(ours.landmarks, theirs.landmarks, atol=0.01)


def test_its_fingerprint_changes_with_any_of_its_files(folder, copied):
    first = load(folder).fingerprint()
    assert load(copied).fingerprint() == first
    spec = json.loads((copied / "spec.json").read_text())
    assert CascadeSpec.parse(spec, where="x").name == "mtcnn"
    (copied / "spec.json").write_text(json.dumps(spec))
    assert load(copied).fingerprint() != first


def test_other_limits_are_another_model_of_the_same_nets(folder, pictures):
    opened = load(folder)
    large = opened.looking_for(min_face_px=60)
    assert large.fingerprint() != opened.fingerprint()
    assert "min_face_px 60" in large.name
    assert opened.looking_for().fingerprint() == opened.fingerprint()
    assert len(large.detect(pictures[0][1])) <= len(opened.detect(pictures[0][1]))
    assert len(opened.looking_for(proposals=3).detect(pictures[0][1])) <= 3
    with pytest.raises(UsageError, match="proposals is 0"):
        opened.looking_for(proposals=0)


def test_a_lost_net_a_second_one_and_a_foreign_one_are_refused(copied, folder, tmp_path):
    shutil.copyfile(copied / "rnet.onnx", copied / "rnet.pt")
    with pytest.raises(CheckpointError, match="2 files of rnet"):
        load(copied)
    (copied / "rnet.pt").unlink()
    (copied / "rnet.onnx").replace(tmp_path / "rnet.onnx")
    with pytest.raises(MissingError, match="has no rnet"):
        load(copied)
    shutil.copyfile(copied / "onet.onnx", copied / "rnet.onnx")
    with pytest.raises(CheckpointError, match=r"is mtcnn\.onet with rules of its own"):
        load(copied)
    spec = json.loads((folder / "spec.json").read_text())
    spec["min_face_px"] = 12
    shutil.copyfile(folder / "rnet.onnx", copied / "rnet.onnx")
    (copied / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match="not the pnet of mtcnn"):
        load(copied)


def test_nets_do_not_decode_and_folders_of_others_stay(lively, pictures, tmp_path):
    with pytest.raises(UsageError, match="decoded between its nets"):
        export(lively, tmp_path / "c", Onnx(decode=True), pictures=pictures)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.txt").write_text("keep me")
    with pytest.raises(UsageError, match="slimface did not make it"):
        export(lively, tmp_path / "mine", Onnx(), pictures=pictures)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("rounds_up", [True, False])
@pytest.mark.parametrize("size", [(13, 12), (30, 41), (41, 42), (75, 43), (64, 131)])
def test_tiles_answer_as_the_whole_picture_does(rounds_up, size):
    spec = mtcnn.facenet()
    if not rounds_up:
        options = {"ceil": False}
        architecture = spec.architecture.model_copy(update={"options": options})
        spec = spec.model_copy(update={"architecture": architecture})
    pnet = build(spec, seed=1).eval().pnet
    whole = TorchNetwork(pnet)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    wanted = whole(images)
    found = Tiled(whole, (41, 43), spec)(images)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5)
    np.testing.assert_allclose(found.offsets, wanted.offsets, atol=1e-5)


def test_a_cascade_of_fixed_sizes_finds_the_same_faces(lively, folder, pictures, tmp_path):
    report = export(lively, tmp_path / "fixed", Onnx(dynamic=False), pictures=pictures)
    assert report.agrees and report.faces > 0
    session = load(tmp_path / "fixed").networks.pnet
    assert session.canvas == (161, 161)


def test_tiles_of_even_sides_do_not_end_as_pictures_do(lively):
    with pytest.raises(CheckpointError, match="sides must be odd"):
        Tiled(lambda images: images, (162, 161), lively.spec)


@pytest.mark.slow
def test_an_executorch_cascade_finds_the_same_faces(lively, pictures, tmp_path):
    pytest.importorskip("executorch")
    form = format_named("executorch").parse({}, where="here")
    report = export(lively, tmp_path / "cascade", form, pictures=pictures)
    assert report.agrees and report.faces > 0


def test_a_runtime_that_takes_one_crop_a_call_is_given_one():
    seen = []

    def one(images):
        seen.append(images.shape)
        mean = images.mean((1, 2, 3))[:, None]
        return RawFaces(mean, np.repeat(mean[..., None], 4, 2), None)

    images = np.random.default_rng(0).random((5, 3, 24, 24), dtype=np.float32)
    raw = OneByOne(one)(images)
    assert seen == [(1, 3, 24, 24)] * 5
    np.testing.assert_allclose(raw.logits[:, 0], images.mean((1, 2, 3)), rtol=1e-5)
    assert raw.offsets.shape == (5, 1, 4)
