"""What a small device needs: detection from a file where torch, OpenCV and the like are absent."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

ABSENT = ("torch", "torchvision", "safetensors", "onnx", "scipy", "yaml", "matplotlib", "cv2")


def python(code: str, *words: object, forbid: tuple[str, ...] = ABSENT, fails: bool = False) -> str:
    """Run code in a fresh interpreter in which the packages of ``forbid`` cannot be imported.

    Returns:
        What it wrote to standard output, or to standard error if it is expected to fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Python imports this module first, in the processes that the code starts as well. A None
        # in sys.modules makes every import of that name fail, as if it were not installed.
        wall = f"import sys\nsys.modules.update(dict.fromkeys({forbid!r}))\n"
        (Path(folder) / "sitecustomize.py").write_text(wall)
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{textwrap.dedent(code)}", *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": folder},
        )
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def slimface(*words: object, fails: bool = False) -> str:
    return python("from slimface.cli.app import main\nmain()", *words, fails=fails)


@pytest.fixture
def picture(tmp_path):
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[16:20, 24:28] = 255
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), pixels)
    return path


def test_the_command_line_detects(tiny_onnx, picture, tmp_path):
    words = ("detect", picture, "--model", tiny_onnx, "--json", "--save", tmp_path / "drawn")
    content = json.loads(slimface(*words))
    assert content["pictures"][0]["faces"][0]["box"] == [22, 14, 30, 22]
    assert (tmp_path / "drawn" / "one.png").exists()


def test_the_wall_stands():
    assert "cv2" in python("import cv2", fails=True)


def test_the_command_line_resizes_and_benchmarks_and_compares(tiny_onnx, picture, tmp_path):
    resized = slimface("detect", picture, "--model", tiny_onnx, "--json", "--longest", "90")
    assert len(json.loads(resized)["pictures"][0]["faces"]) == 1
    timed = slimface("benchmark", tiny_onnx, "--json", "--rounds", 1, "--runs", 2)
    assert '"median_ms"' in timed or '"milliseconds"' in timed, timed
    compared = slimface("parity", tiny_onnx, tiny_onnx, picture.parent, "--json")
    assert json.loads(compared)["agrees"] is True
    told = slimface("parity", tiny_onnx, tiny_onnx, fails=True)
    assert "Name a folder with pictures of faces" in told


def test_faces_are_aligned(tmp_path):
    code = """
    import numpy as np
    from slimface.deploy.align import TEMPLATE, align
    picture = np.full((200, 300, 3), 90, dtype=np.uint8)
    print(align(picture, 1.5 * TEMPLATE, 112).mean())
    """
    assert python(code).strip() == "90.0"


@pytest.mark.parametrize("source", ["clip.mp4", "7"])
def test_videos_and_cameras_say_what_to_install(source, tiny_onnx, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"video")
    asked = tmp_path / source if source.endswith("mp4") else source
    told = slimface("detect", asked, "--model", tiny_onnx, fails=True)
    assert "opencv-python-headless" in told
    assert "pip install 'slimface[video]'" in told


@pytest.mark.parametrize("verb", [("evaluate",), ("benchmark", "--runtimes", "all")])
def test_scoring_on_annotated_pictures_says_what_to_install(verb, tiny_onnx, tmp_path):
    told = slimface(*verb, tiny_onnx, "--data", tmp_path, fails=True)
    assert "Traceback" not in told
    assert "pip install 'slimface[train]'" in told


def test_a_server_answers(tiny_onnx, picture):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    code = """
    from pathlib import Path
    from fastapi.testclient import TestClient
    from slimface.deploy.runtimes import open_exported
    from slimface.serve.app import create_app
    with TestClient(create_app(lambda: open_exported(sys.argv[1]))) as client:
        answer = client.post("/detect", content=Path(sys.argv[2]).read_bytes())
    print(len(answer.json()["pictures"][0]["faces"]))
    """
    assert python(code, tiny_onnx, picture).strip() == "1"


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
