"""``slimface export``, ``parity`` and ``benchmark``: a file is written, checked and measured."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.cli.size import read_size
from slimface.core.benchmark import Benchmark
from slimface.data.drawn import Drawn, write_drawn
from slimface.errors import MissingError, ParityError, RecipeError, UsageError
from slimface.model.build import build
from slimface.model.checkpoint import Provenance, save
from slimface.model.eresfd import naver
from tests.conftest import INTERRUPTIBLE


def run(*words: object) -> str:
    """Return what a command prints; its errors fly to the one place that shows them."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random detector whose scores are spread, so that it finds something to compare."""
    detector = build(naver("tiny", width=4), seed=0)
    with torch.no_grad():
        for head in (*detector.conf, *detector.loc):
            head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(detector, path, provenance=Provenance(licence="CC0"))
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_drawn(Drawn(count=2, height_px=96, width_px=128), root, "val")
    return root / "WIDER_val" / "images"


@pytest.fixture(scope="module")
def exported(
    model: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    words = ["--out", path, "--size", "96x64", "--pictures", scenes]
    return path, json.loads(run("export", model, *words, "--json"))


def test_export_says_what_it_wrote_and_how_it_agrees(
    exported: tuple[Path, dict[str, object]],
) -> None:
    path, said = exported
    assert said["bytes"] == path.stat().st_size
    assert said["parity"]["missed"] == 0  # type: ignore[index]
    assert said["parity"]["faces"] > 0  # type: ignore[index]


def test_where_a_model_comes_from_goes_with_the_file(
    exported: tuple[Path, dict[str, object]],
) -> None:
    from slimface.deploy.runtimes import OnnxNetwork

    provenance = json.loads(OnnxNetwork(exported[0]).metadata["slimface.provenance"])
    assert provenance["licence"] == "CC0"
    assert provenance["model"] == "tiny"


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["--format", "onx"], UsageError, "Did you mean onnx"),
        (["--size", "640"], UsageError, "640x480"),
        (["--opset", "7"], RecipeError, "opset"),
        (["--exporter", "dynamite"], RecipeError, "exporter"),
        (["--out", "x.pt"], UsageError, r"must end in \.onnx"),
        (["--pictures", "nowhere"], MissingError, "nowhere"),
    ],
)
def test_export_refuses_what_makes_no_sense(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], error: type[Exception], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        run("export", model, *words)
    assert not list(tmp_path.iterdir())


def test_export_of_an_exported_file_is_refused(exported: tuple[Path, dict[str, object]]) -> None:
    with pytest.raises(UsageError, match="is exported already"):
        run("export", exported[0])


def test_parity_of_a_file_with_its_model(
    model: Path, scenes: Path, exported: tuple[Path, dict[str, object]]
) -> None:
    report = json.loads(run("parity", model, exported[0], scenes, "--limit", 2, "--json"))
    assert report["agrees"] is True
    assert report["matched_share"] == 1
    assert "share that agrees" in run("parity", model, exported[0], "--limit", 1)


def test_parity_fails_between_strangers(model: Path, scenes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save(build(naver("tiny", width=4), seed=1), other)
    with pytest.raises(ParityError, match="missed"):
        run("parity", model, other, scenes)


def test_benchmark_prints_a_row_for_each_and_writes_the_records(
    exported: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "records.json"
    words = ["--size", "64x48", "--size", "32x32", "--rounds", 1, "--runs", 1]
    printed = run("benchmark", exported[0], *words, "--out", out)
    assert "64x48" in printed
    assert "32x32" in printed
    records = [Benchmark.model_validate(row) for row in json.loads(out.read_text())]
    assert [(record.height, record.width) for record in records] == [(48, 64), (32, 32)]


def test_an_interrupted_benchmark_prints_and_keeps_what_it_has(
    exported: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "records.json"
    words = ["benchmark", exported[0], "--size", "32x32", "--size", "640x480", "--runs", "300"]
    command = [sys.executable, "-c", INTERRUPTIBLE]
    process = subprocess.Popen(
        [*command, *map(str, words), "--rounds", "2", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(600):
        if out.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "32x32" in printed
    assert "640x480" not in printed
    assert len(json.loads(out.read_text())) == 1


def test_sizes_are_width_by_height() -> None:
    assert read_size("640x480") == (480, 640)
    for wrong in ("640", "0x1", "640x", "x", "640 480", "-1x5", "640x480x3", "123456x1"):
        with pytest.raises(UsageError, match="is not a size"):
            read_size(wrong)


def test_a_bundle_is_written_measured_and_verified(model, tmp_path):
    folder = tmp_path / "bundle"
    words = ("--size", "160x120", "--score", "0.5", "--out", folder)
    told = run("export", model, "--format", "bundle", "--files", "onnx", *words, "--json")
    assert json.loads(told)["file"] == str(folder)
    times = [
        Benchmark.model_validate(one) for one in json.loads((folder / "latency.json").read_text())
    ]
    assert [(one.runtime, one.width, one.height) for one in times] == [("onnxruntime", 160, 120)]
    assert f"{times[0].total.median_ms:.2f}" in (folder / "README.md").read_text()
    checks = json.loads(run("verify", folder, "--json"))["checks"]
    assert {check["verdict"] for check in checks} == {"passed"}


def test_a_bundle_of_an_unknown_format_names_the_nearest(model, tmp_path):
    with pytest.raises(UsageError, match="Did you mean ncnn"):
        run("export", model, "--format", "bundle", "--files", "onnx,nccn", "--out", tmp_path / "b")


@pytest.mark.parametrize("form", ["web", "android", "bundle"])
def test_folders_for_detectors_refuse_classifiers(form, tmp_path):
    from tests.model.test_classifier import made

    path = tmp_path / "heads.safetensors"
    save(made(), path)
    with pytest.raises(UsageError, match="is for classification"):
        run("export", path, "--format", form, "--no-measure", "--out", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
