"""Checkpoints: what is saved is what is loaded, and nothing else is."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slimface.core.spec import SPEC_VERSION, Architecture
from slimface.errors import CheckpointError, MissingError
from slimface.model import checkpoint, eresfd
from slimface.model.build import build
from slimface.model.checkpoint import Provenance, fingerprint, load_checkpoint, save


@pytest.fixture
def detector():
    return build(eresfd.naver(width=8), seed=1)


@pytest.fixture
def file(detector, tmp_path):
    path = tmp_path / "model.safetensors"
    save(detector, path)
    return path


def header_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return opened.metadata()


def rewrite(path: Path, *, tensors=None, **header: str) -> None:
    """Save the file again with a part of it exchanged."""
    changed = {**header_of(path), **header}
    save_file(tensors if tensors is not None else load_file(path), path, metadata=changed)


def test_everything_comes_back(detector, tmp_path):
    path = tmp_path / "model.safetensors"
    metrics = [{"kind": "evaluation", "average_precision": 0.7, "stamp": "abc"}]
    save(
        detector, path, provenance=Provenance(parent="f00", seed=3, licence="MIT"), metrics=metrics
    )
    loaded = load_checkpoint(path)
    assert fingerprint(loaded.detector) == fingerprint(detector)
    assert loaded.spec == detector.spec
    assert loaded.metrics == tuple(metrics)
    assert (loaded.provenance.parent, loaded.provenance.seed) == ("f00", 3)
    assert loaded.provenance.licence == "MIT"
    assert loaded.provenance.versions["torch"] == str(torch.__version__)
    assert not loaded.detector.training


def test_a_fingerprint_knows_every_number_and_the_spec(detector):
    first = fingerprint(detector)
    with torch.no_grad():
        detector.loc[0].bias[0] += 1e-6
    assert fingerprint(detector) != first
    same = build(eresfd.naver("other", width=8), seed=1)
    assert fingerprint(same) != first


def test_files_that_begin_like_a_pickle_are_still_checkpoints(detector, tmp_path):
    """The first byte is that of the header's length; 0x80 is also how a pickle begins."""
    path = tmp_path / "model.safetensors"
    for length in range(0, 256, 8):
        save(detector, path, provenance=Provenance(recipe="x" * length))
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    assert fingerprint(load_checkpoint(path).detector) == fingerprint(detector)


def test_a_pickled_file_is_refused_with_the_way_to_import_it(detector, tmp_path):
    for legacy in (False, True):
        path = tmp_path / "model.safetensors"
        torch.save(detector.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match="import_weights"):
            load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.99])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(file)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_spec_of_a_newer_version_is_refused(file):
    spec = json.loads(header_of(file)["spec"])
    spec["version"] = SPEC_VERSION + 1
    rewrite(file, spec=json.dumps(spec))
    with pytest.raises(CheckpointError, match="Update slimface"):
        load_checkpoint(file)


def test_an_unknown_architecture_is_named(file, detector):
    spec = detector.spec.model_copy(update={"architecture": Architecture(name="facenet9000")})
    rewrite(file, spec=spec.model_dump_json())
    with pytest.raises(CheckpointError, match="facenet9000"):
        load_checkpoint(file)


def test_a_file_without_a_spec_is_refused(file):
    save_file(load_file(file), file)
    with pytest.raises(CheckpointError, match="no spec"):
        load_checkpoint(file)


@pytest.mark.parametrize(
    "header", [{"metrics": "[1, "}, {"provenance": '{"parents": 2}'}, {"spec": '{"name": "x"}'}]
)
def test_a_header_that_breaks_the_rules_is_refused(file, header):
    rewrite(file, **header)
    with pytest.raises(CheckpointError, match="header is not what slimface writes"):
        load_checkpoint(file)


def test_missing_and_unknown_tensors_are_named(file):
    tensors = load_file(file)
    tensors["somebody.else"] = tensors.pop("loc.0.bias")
    rewrite(file, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"(?s)loc\.0\.bias.*somebody\.else"):
        load_checkpoint(file)


def test_layers_that_do_not_fit_each_other_are_refused(file):
    tensors = load_file(file)
    tensors["base.conv2.0.weight"] = tensors["base.conv2.0.weight"][:, :3].contiguous()
    rewrite(file, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"do not fit each other near base\.conv2\.0"):
        load_checkpoint(file)


def test_a_tensor_without_a_width_has_to_have_its_shape(file):
    tensors = load_file(file)
    tensors["base.m0.fpn.w1"] = torch.ones(2, 8)
    rewrite(file, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"w1 has shape \(2, 8\)"):
        load_checkpoint(file)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(detector, file, monkeypatch):
    before = file.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save(build(eresfd.naver(width=8), seed=2), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_said(detector, tmp_path):
    with pytest.raises(CheckpointError, match="could not be written"):
        save(detector, tmp_path / "none" / "model.safetensors")


class _Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/slimface-was-here",)


def test_nothing_in_a_published_file_is_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": _Evil()}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        checkpoint.read_published(path)
    assert not Path("/tmp/slimface-was-here").exists()


@pytest.mark.parametrize(
    "wrap", [dict, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"weight": t}]
)
def test_published_tensors_are_found_under_their_usual_keys(wrap, tmp_path):
    path = tmp_path / "file.tar"
    torch.save(wrap({"module.a": torch.ones(2), "module.b": torch.zeros(1)}), path)
    assert set(checkpoint.read_published(path)) == {"a", "b"}


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.ones(2)])
def test_other_content_is_refused(content, tmp_path):
    path = tmp_path / "file.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a state dict"):
        checkpoint.read_published(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02]q", b"PK\x03\x04 and so on"])
def test_garbage_is_refused(content, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.read_published(path)


def test_aliases_go_when_they_equal_their_twins(caplog):
    tensors = {"a.x": torch.ones(2), "b.x": torch.ones(2), "c": torch.zeros(1)}
    with caplog.at_level("INFO"):
        kept = checkpoint.drop_aliases(tensors, {"b.": "a."}, where="file")
    assert set(kept) == {"a.x", "c"}
    assert "1 tensors were second names" in caplog.text


@pytest.mark.parametrize("twin", [{"a.x": torch.zeros(2)}, {}])
def test_aliases_that_differ_from_their_twins_are_refused(twin):
    with pytest.raises(CheckpointError, match=r"b\.x should be a second name of a\.x"):
        checkpoint.drop_aliases({"b.x": torch.ones(2), **twin}, {"b.": "a."}, where="file")
