"""What a small device needs: detection from a file where torch, onnx and the like are absent."""

import json
import os
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

ABSENT = ("torch", "torchvision", "safetensors", "onnx", "scipy", "yaml", "matplotlib")


def python(code: str, *words: object, forbid: tuple[str, ...] = ABSENT) -> str:
    """Run code in a fresh interpreter in which the packages of ``forbid`` cannot be imported."""
    # A None in sys.modules makes every import of that name fail, as if it were not installed.
    wall = f"import sys\nsys.modules.update(dict.fromkeys({forbid!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", wall + textwrap.dedent(code), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def picture(tmp_path):
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[16:20, 24:28] = 255
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), pixels)
    return path


def test_the_command_line_detects(tiny_onnx, picture, tmp_path):
    code = "from slimface.cli.app import main\nmain()"
    words = ("detect", picture, "--model", tiny_onnx, "--json", "--save", tmp_path / "drawn")
    content = json.loads(python(code, *words))
    assert content["pictures"][0]["faces"][0]["box"] == [22, 14, 30, 22]
    assert (tmp_path / "drawn" / "one.png").exists()


def test_python_detects(tiny_onnx, picture):
    code = """
    import slimface
    faces = slimface.load(sys.argv[1]).detect(sys.argv[2])
    print(faces.boxes.tolist())
    """
    assert python(code, tiny_onnx, picture).strip() == "[[22.0, 14.0, 30.0, 22.0]]"


def test_a_zoo_model_says_what_to_install():
    code = """
    import slimface
    try:
        slimface.load("eresfd")
    except slimface.SlimfaceError as error:
        print(type(error).__name__, error)
    """
    out = python(code)
    assert out.startswith("MissingError opening eresfd needs the package torch")
    assert "pip install 'slimface[train]'" in out


def test_importing_is_fast_and_loads_nothing_heavy():
    code = """
    import time
    start = time.perf_counter()
    import slimface
    took = time.perf_counter() - start
    print(took < 0.4, [name for name in ("torch", "cv2", "onnxruntime") if name in sys.modules])
    """
    assert python(code, forbid=()).strip() == "True []"


def test_help_loads_no_torch():
    code = """
    from slimface.cli.app import app
    try:
        app(["detect", "--help"], standalone_mode=False)
    finally:
        heavy = [name for name in ("torch", "onnxruntime", "cv2") if name in sys.modules]
        print("loaded", heavy)
    """
    assert "loaded []" in python(code, forbid=())
