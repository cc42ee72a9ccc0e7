"""What a newcomer does on the first day, through the command line, on drawn faces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SLIMFACE = [sys.executable, "-m", "slimface"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first-day")


def slimface(place: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*SLIMFACE, *words],
        cwd=place,
        env={**os.environ, "SLIMFACE_HOME": str(place / "home"), "SLIMFACE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


RECIPE = """
name: tiny
model: eresfd
pretrained: false
source: {kind: drawn, train: 40, val: 6, size_px: 128}
steps:
  - kind: train
    size_px: 96
    schedule: {epochs: 1, batch_size: 8, learning_rate: 0.003}
  - kind: evaluate
    input: {kind: original}
  - kind: export
    file: before.onnx
    pictures: 2
  - kind: prune
    allocator: {rate: 0.5}
  - kind: train
    size_px: 96
    schedule: {epochs: 1, batch_size: 8}
  - kind: evaluate
    input: {kind: original}
  - kind: export
    file: slim.onnx
    pictures: 2
  - kind: benchmark
    sizes: [[96, 128]]
    rounds: 1
    runs: 2
"""


@pytest.mark.slow
def test_from_a_recipe_to_a_measured_file(place: Path) -> None:
    (place / "tiny.yaml").write_text(RECIPE)
    done = slimface(place, "run", "tiny.yaml", "--workers", "0")
    assert "Parameters" in done.stdout and "MACs" in done.stdout
    run = place / "runs" / "tiny"
    assert {"card.html", "model.safetensors", "before.onnx", "slim.onnx", "records.jsonl"} <= {
        path.name for path in run.iterdir()
    }
    assert (run / "slim.onnx").stat().st_size < (run / "before.onnx").stat().st_size

    again = slimface(place, "run", "tiny.yaml", "--json")
    assert again.stderr.count("done before") == 8
    assert json.loads(again.stdout)["folder"] == "runs/tiny"

    scenes = slimface(place, "demo", "data", "scenes", "--count", "2", "--val", "2", "--json")
    assert json.loads(scenes.stdout)
    found = slimface(
        place, "detect", "scenes/WIDER_val", "--model", "runs/tiny/slim.onnx", "--json"
    )
    assert len(json.loads(found.stdout)["pictures"]) == 2

    start = next((run / "steps").glob("00-start-*")) / "model.safetensors"
    change = slimface(place, "profile", str(run / "model.safetensors"), "--against", str(start))
    assert "base.conv1.0" in change.stdout
    slimface(place, "parity", "runs/tiny/slim.onnx", "runs/tiny/model.safetensors")
    score = slimface(
        place,
        "evaluate",
        "runs/tiny/slim.onnx",
        "--data",
        "scenes",
        "--input",
        "longest:128",
        "--json",
    )
    assert json.loads(score.stdout)["protocol"]["pictures"] == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "nothing.yaml"), 2, "slimface run --list"),
        (("train", "eresfd", "--epochs", "0"), 2, "epochs"),
        (("prune", "eresfd", "--rate", "1.5"), 2, "rate"),
        (("detect", "nowhere.jpg"), 1, "nowhere.jpg"),
        (("export", "eresfd", "--format", "onx"), 2, "onnx"),
        (("detectt",), 2, "detectt"),
        (("evaluate", "eresfd", "--data", "nowhere"), 1, "nowhere"),
    ],
)
def test_wrong_use_is_explained(place: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = slimface(place, *words, code=code)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
