"""Bundles are whole, say what they hold, and every fault in one is found."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.core.bundle import read_bundle
from slimface.core.spec import read_spec
from slimface.errors import CheckpointError, MissingError, ParityError, UsageError
from slimface.export.bundle import export_bundle
from slimface.export.cweights import CWeights
from slimface.export.golden import read_golden
from slimface.export.onnx import Onnx
from slimface.export.torchscript import TorchScript
from slimface.export.verify import verify
from slimface.files import SEAL, seal
from tests.export.conftest import install_runtime, say

ONNX = "models/model.onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory, detector, pictures) -> Path:
    folder = tmp_path_factory.mktemp("made") / "bundle"
    sides = {"height": 96, "width": 128}
    export_bundle(
        detector,
        folder,
        Onnx(**sides),
        others=[TorchScript(**sides)],
        pictures=pictures,
        provenance={"licence": "MIT", "origin": "drawn here"},
    )
    return folder


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def failures(folder: Path) -> dict[str, str]:
    return {check.what: check.detail for check in verify(folder) if check.verdict == "failed"}


def test_a_whole_bundle_passes_in_every_runtime(made):
    checks = list(verify(made))
    assert {check.verdict for check in checks} == {"passed"}
    names = [check.what for check in checks]
    for file in (f"{ONNX} in onnxruntime", "models/model.pt in torchscript"):
        assert [name for name in names if name.startswith(file)] == [
            f"{file}: input", f"{file}: tensors", f"{file}: faces"
        ]  # fmt: skip


def test_it_says_what_it_holds(made, detector):
    said = read_bundle((made / "spec.json").read_bytes(), where="spec.json")
    assert (said.spec, said.licence) == (detector.spec, "MIT")
    assert [file.format for file in said.files] == ["onnx", "torchscript"]
    assert {file.golden for file in said.files} == {"golden"}, "one golden picture for both"
    assert set(json.loads((made / "parity.json").read_bytes())) == {f.path for f in said.files}
    assert json.loads((made / "latency.json").read_bytes()) == []
    text = (made / "README.md").read_text()
    assert "$" not in text
    assert "Licence of the weights: MIT" in text
    for runner in ("python/detect.py", "js/slimface.js", "cpp/slimface.hpp", "kotlin/Slimface.kt"):
        assert (made / "runners" / runner).is_file()


def test_sha256sum_agrees(made):
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", SEAL], cwd=made, check=False
    )
    assert done.returncode == 0


def test_a_changed_file_is_found_and_not_opened(bundle):
    content = bytearray((bundle / ONNX).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / ONNX).write_bytes(content)
    checks = {check.what: check for check in verify(bundle)}
    assert "damaged, cut off or changed" in failures(bundle)[ONNX]
    assert not any(what.startswith(f"{ONNX} in") for what in checks)
    assert checks["models/model.pt in torchscript: faces"].verdict == "passed"


def test_a_missing_file_is_found(bundle):
    (bundle / "golden" / "logits.f32").unlink()
    assert failures(bundle) == {"golden/logits.f32": "it is not there"}


def test_what_is_not_listed_is_said_and_never_beside_a_model(bundle):
    (bundle / "notes.txt").write_text("mine")
    said = {check.what: check for check in verify(bundle)}
    assert "notes.txt" in said["other files"].detail
    assert said[f"{ONNX} in onnxruntime: faces"].verdict == "passed"
    (bundle / "models" / "model.bin").write_text("not mine")
    said = {check.what: check for check in verify(bundle)}
    assert "beside it lies what is not listed" in said[ONNX].detail


def tensor_changed(bundle: Path) -> None:
    path = bundle / "golden" / "offsets.f32"
    values = np.fromfile(path, "<f4")
    values[np.abs(values).argmax()] *= 1.01
    values.tofile(path)


def input_changed(bundle: Path) -> None:
    path = bundle / "golden" / "resized.f32"
    # One byte is what another OpenCV may round to the other side.
    (np.fromfile(path, "<f4") + np.float32(2)).tofile(path)


def face_changed(bundle: Path) -> None:
    told = json.loads((bundle / "golden" / "golden.json").read_bytes())
    told["faces"][0]["box"][0] += 0.2
    (bundle / "golden" / "golden.json").write_text(json.dumps(told))


def face_lost(bundle: Path) -> None:
    told = json.loads((bundle / "golden" / "golden.json").read_bytes())
    del told["faces"][0]
    (bundle / "golden" / "golden.json").write_text(json.dumps(told))


def spec_changed(bundle: Path) -> None:
    told = json.loads((bundle / "spec.json").read_bytes())
    told["spec"]["postprocess"]["score_floor"] = 0.9
    (bundle / "spec.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (input_changed, f"{ONNX} in onnxruntime: input", "resized"),
        (tensor_changed, f"{ONNX} in onnxruntime: tensors", "offsets"),
        (face_changed, f"{ONNX} in onnxruntime: faces", "a corner is 0.2 px off"),
        (face_lost, f"{ONNX} in onnxruntime: faces", "faces, not"),
        (spec_changed, ONNX, "another than that in spec.json"),
    ],
)
def test_what_does_not_fit_is_found_even_if_the_digests_do(bundle, change, where, says):
    change(bundle)
    seal_anew(bundle)
    assert says in failures(bundle)[where]


def seal_anew(bundle: Path) -> None:
    (bundle / SEAL).unlink()
    seal(bundle)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("spec.json", "{", "not the spec of a bundle"),
        ("golden/golden.json", "[]", "not a golden picture"),
        ("golden/logits.f32", "abc", "not a golden picture"),
        (ONNX, "no model", "cannot read it"),
    ],
)
def test_damage_that_was_sealed_is_named(bundle, name, content, says):
    (bundle / name).write_text(content)
    seal_anew(bundle)
    assert says in " ".join(failures(bundle).values())


def test_a_runtime_that_is_missing_is_named(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    checks = {check.what: check for check in verify(bundle)}
    assert checks[ONNX].verdict == "not run"
    assert "onnxruntime, which is not installed" in checks[ONNX].detail
    result = CliRunner().invoke(app, ["verify", str(bundle)])
    assert result.exit_code == 0, "the other runtime proved it"
    with pytest.raises(ParityError, match="not installed"):
        CliRunner().invoke(app, ["verify", str(bundle), "--every"], catch_exceptions=False)


@pytest.mark.parametrize("line", ["../x", "/etc/passwd", "a/../../b"])
def test_a_list_that_leads_out_of_the_folder_is_refused(bundle, line):
    (bundle / SEAL).write_text(f"{'0' * 64}  {line}\n")
    with pytest.raises(CheckpointError, match="SHA256SUMS:1"):
        list(verify(bundle))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no SHA256SUMS"):
        list(verify(tmp_path))
    with pytest.raises(MissingError, match="no folder"):
        list(verify(tmp_path / "nowhere"))
    (tmp_path / SEAL).write_text("")
    with pytest.raises(CheckpointError, match="lists no file"):
        list(verify(tmp_path))


def test_the_verb_says_so_and_fails(bundle):
    result = CliRunner().invoke(app, ["verify", str(bundle), "--json"])
    assert result.exit_code == 0
    assert {check["verdict"] for check in json.loads(result.stdout)["checks"]} == {"passed"}
    face_changed(bundle)
    with pytest.raises(ParityError, match=r"checks failed, first golden/golden\.json"):
        CliRunner().invoke(app, ["verify", str(bundle)], catch_exceptions=False)


def test_it_is_verified_without_torch(bundle):
    code = "import sys; sys.modules['torch'] = None\nfrom slimface.cli.app import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(bundle), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    said = {check["what"]: check["verdict"] for check in json.loads(done.stdout)["checks"]}
    assert said[f"{ONNX} in onnxruntime: faces"] == "passed"
    assert said["models/model.pt"] == "not run"


def test_golden_pictures_are_read_as_written(made):
    proof = read_golden(made / "golden")
    assert proof.picture.shape == (480, 640, 3)
    assert set(proof.tensors) == {"images", "resized", "logits", "offsets"}
    assert len(proof.faces) > 0


@pytest.mark.parametrize(
    ("forms", "says"),
    [
        ([Onnx(), Onnx(decode=True)], "one file of each"),
        ([Onnx(), CWeights(dynamic=False)], "no runtime here"),
    ],
)
def test_formats_that_make_no_bundle_are_refused(detector, tmp_path, forms, says):
    with pytest.raises(UsageError, match=says):
        export_bundle(detector, tmp_path / "bundle", forms[0], others=forms[1:])
    assert not any(tmp_path.iterdir())


def test_nothing_is_left_of_a_bundle_that_proves_nothing(detector, tmp_path, pictures):
    with pytest.raises(ParityError, match="finds no face of score 1"):
        export_bundle(detector, tmp_path / "bundle", Onnx(), pictures=pictures, score=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.data
def test_a_cascade_is_bundled_whole_and_its_runner_proves_itself(
    tmp_path, weights_root, node, ort_web
):
    from slimface.model.zoo import load

    export_bundle(load("mtcnn"), tmp_path / "bundle", Onnx())
    checks = list(verify(tmp_path / "bundle"))
    assert {check.verdict for check in checks} == {"passed"}
    assert checks[-1].what == "models/onnx in onnxruntime: faces"
    runner = tmp_path / "bundle" / "runners" / "js"
    assert {place.name for place in runner.parent.iterdir()} == {
        *("js", "cpp", "kotlin"),
        "README.md",
    }
    install_runtime(runner, ort_web)
    code, said = say(node, runner / "detect.mjs", "--golden")
    assert code == 0, said
    assert "corners and landmarks" in said
    nets = tmp_path / "bundle" / "models" / "onnx"
    assert read_spec((nets / "spec.json").read_bytes(), where="").task == "cascade"


def test_a_bundle_opens_as_its_first_file(made, bundle, pictures):
    from slimface.loading import load, load_any

    _, picture = pictures[0]
    wanted = load(made / ONNX).detect(picture)
    for opened in (load(made), load_any(made)):
        np.testing.assert_array_equal(opened.detect(picture).boxes, wanted.boxes)
    (bundle / "spec.json").write_text('{"files": [], "version": 99}')
    with pytest.raises(CheckpointError, match="version 99"):
        load(bundle)


def test_a_model_is_not_opened_if_what_lies_beside_it_is_broken(bundle):
    companion = bundle / "models" / "model.onnx.spec.json"
    companion.write_text("{}")
    seal_anew(bundle)
    companion.write_text("[]")
    said = {check.what: check.verdict for check in verify(bundle)}
    assert said["models/model.onnx.spec.json"] == "failed"
    assert said[ONNX] == "not run"
