"""The zoo: published weights, their anchors, and where they are found."""

import shutil

import pytest
import torch

from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.model import zoo
from slimface.model.checkpoint import fingerprint


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFACE_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture
def weights(offline, weights_root, monkeypatch):
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    return weights_root


EVERY = pytest.mark.parametrize("name", zoo.names())


@EVERY
def test_every_entry_is_complete(name):
    entry = zoo.entry(name)
    assert entry.licence
    assert entry.origin
    assert all(len(file.sha256) == 64 and file.size > 0 for file in entry.files)
    assert all(file.url.startswith("https://") for file in entry.files)
    assert zoo.cost(name).parameters > 0


def test_the_default_may_be_used_in_a_product():
    assert zoo.names()[0] == "eresfd"
    assert not zoo.entries()[0].restricted


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean eresfd-bfpgm"):
        zoo.load("eresfd-bfpmg")


def test_without_weights_and_network_it_says_what_to_fetch_where(offline):
    with pytest.raises(MissingError, match=r"(?s)SLIMFACE_OFFLINE.*Fetch https://.*put it at"):
        zoo.load("eresfd")


@pytest.mark.data
@EVERY
def test_published_weights_load_strictly(name, weights, caplog):
    missing = [file.path for file in zoo.entry(name).files if zoo.find(file) is None]
    if missing:
        pytest.skip(f"no {missing} in {weights}")
    detector = zoo.load(name)
    assert detector.spec == zoo.entry(name).spec
    assert not detector.training
    assert sum(p.numel() for p in detector.parameters()) == zoo.cost(name).parameters
    assert ("non-commercial" in caplog.text) == zoo.entry(name).restricted


@pytest.mark.data
@pytest.mark.parametrize("name", ["eresfd-bfpgm", "eresfd-bfpgm-30", "eresfd-bfpgm-60"])
def test_aliases_are_dropped_and_said_so(name, weights, caplog):
    with caplog.at_level("INFO"):
        zoo.load(name)
    assert "445 tensors were second names" in caplog.text


@pytest.mark.data
def test_a_published_alias_that_differs_is_refused(weights, tmp_path):
    tensors = torch.load(weights / "eresfd/bfpgm_30.pth", map_location="cpu", weights_only=True)
    tensors["conf0.bias"] = tensors["conf0.bias"] + 1
    path = tmp_path / "changed.pth"
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match=r"conf0\.bias should be a second name"):
        zoo.import_weights(path, like="eresfd-bfpgm")


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "like", "owner"),
    [
        ("lfdp_ERES.pth", "eresfd", "eresfd-lfdp"),
        ("lfdp_fpgm50.pth", "eresfd-bfpgm", "eresfd-lfdp-fpgm50"),
        ("bfpgm_30.pth", "eresfd-lfdp", "eresfd-bfpgm-30"),
    ],
)
def test_weights_with_the_anchors_of_others_are_refused(file, like, owner, weights):
    with pytest.raises(CheckpointError, match=f"weights of {owner} "):
        zoo.import_weights(weights / "eresfd" / file, like=like)


@pytest.mark.data
def test_weights_that_nobody_published_are_imported_as_told(weights, tmp_path):
    """A state dict of one's own, with the anchors one says; and the parts of a release."""
    original = zoo.load("eresfd")
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": original.state_dict()}, path)
    assert fingerprint(zoo.import_weights(path, like="eresfd")) == fingerprint(original)
    parts = {
        f"{part}.": weights / f"eresfd/eresfd_16.pth.{part}.pth" for part in ("base", "loc", "conf")
    }
    assert fingerprint(zoo.import_weights(parts, like="eresfd")) == fingerprint(original)


def test_weights_of_another_family_are_refused(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"body.stage1.0.0.weight": torch.ones(8, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match="does not hold the tensors of eresfd"):
        zoo.import_weights(path, like="eresfd")


@pytest.mark.data
@pytest.mark.parametrize("place", ["eresfd/bfpgm_30.pth", "bfpgm_30.pth", "EResFD-30-pruned.pth"])
def test_weights_are_found_under_our_name_and_the_publishers(
    place, offline, weights_root, monkeypatch
):
    folder = offline / "mine"
    target = folder / place
    target.parent.mkdir(parents=True)
    shutil.copyfile(weights_root / "eresfd/bfpgm_30.pth", target)
    monkeypatch.setenv("SLIMFACE_WEIGHTS", f"{offline}/none:{folder}")
    assert zoo.find(zoo.entry("eresfd-bfpgm-30").files[0]) == target


def test_a_file_of_the_right_name_with_other_content_is_passed_over_and_said(
    offline, monkeypatch, caplog
):
    (offline / "bfpgm_30.pth").write_bytes(b"something else")
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(offline))
    assert zoo.find(zoo.entry("eresfd-bfpgm-30").files[0]) is None
    assert "is not the published file" in caplog.text


@pytest.mark.data
def test_published_files_are_recognised_by_their_content(weights, tmp_path):
    copy = tmp_path / "anything.bin"
    shutil.copyfile(weights / "eresfd/lfdp_ERES.pth", copy)
    assert zoo.recognise(copy).name == "eresfd-lfdp"
    copy.write_bytes(b"nobody's")
    assert zoo.recognise(copy) is None
