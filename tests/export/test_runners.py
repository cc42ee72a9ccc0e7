"""The runners of a bundle: built, and held to what the pipeline makes of noise and of a scene."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.bundle import Bundle, ModelFile
from slimface.deploy.cascade import Networks
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.runtimes import open_exported
from slimface.export.bundle import copy_runners
from slimface.export.golden import Golden, golden, golden_of
from slimface.export.onnx import Onnx
from slimface.loading import load
from tests.export.cascades import RULES
from tests.export.conftest import APPS, install_runtime, say
from tests.export.noisy import CASES, noisy, proof_of

CPP = APPS / "runners" / "cpp"


def write_bundle(
    folder: Path,
    pipeline: Pipeline,
    proof: Golden,
    *,
    decoded: bool = False,
    path: str = "model.onnx",
) -> Path:
    """Write as much of a bundle as runners read."""
    proof.write(folder / "golden")
    file = ModelFile(
        path=path,
        format="onnx",
        runtime="onnxruntime",
        precision="float32",
        outputs="decoded" if decoded else "raw",
        canvas=pipeline.canvas,
    )
    said = Bundle(name=pipeline.spec.name, spec=pipeline.spec, files=(file,))
    (folder / "spec.json").write_text(said.model_dump_json())
    return folder


@pytest.fixture(params=CASES, ids=list(CASES))
def bundle(request, tmp_path) -> Path:
    changes = CASES[request.param]
    pipeline = noisy(**changes)
    return write_bundle(tmp_path, pipeline, proof_of(pipeline), decoded="decoded" in changes)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_onnx) -> Path:
    folder = tmp_path_factory.mktemp("tiny bundle")
    pipeline = open_exported(tiny_onnx)
    shutil.copy(tiny_onnx, folder / "model.onnx")
    return write_bundle(folder, pipeline, golden(pipeline))


def lose_a_face(bundle: Path) -> None:
    told = json.loads((bundle / "golden" / "golden.json").read_bytes())
    told["faces"].pop()
    (bundle / "golden" / "golden.json").write_text(json.dumps(told))


def shift_a_face(bundle: Path) -> None:
    told = json.loads((bundle / "golden" / "golden.json").read_bytes())
    told["faces"][0]["box"][1] += 0.2
    (bundle / "golden" / "golden.json").write_text(json.dumps(told))


def shift_the_mean(bundle: Path) -> None:
    told = json.loads((bundle / "spec.json").read_bytes())
    told["spec"]["preprocess"]["mean"][0] += 1
    (bundle / "spec.json").write_text(json.dumps(told))


def newer(bundle: Path) -> None:
    told = json.loads((bundle / "spec.json").read_bytes())
    (bundle / "spec.json").write_text(json.dumps(told | {"version": 99}))


def other_format(bundle: Path) -> None:
    told = json.loads((bundle / "spec.json").read_bytes())
    told["files"][0]["format"] = "ncnn"
    (bundle / "spec.json").write_text(json.dumps(told))


def cut_off(bundle: Path) -> None:
    text = (bundle / "spec.json").read_text()
    (bundle / "spec.json").write_text(text[: len(text) // 2])


FAULTS = {
    lose_a_face: "faces",
    shift_a_face: "",
    shift_the_mean: "",
    newer: "version 99",
    other_format: "has no",
    cut_off: "spec",
}
"""What is done to a bundle -> what a runner says of it."""


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def broken(request, tmp_path, tiny_bundle) -> tuple[Path, str]:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    request.param(folder)
    return folder, FAULTS[request.param]


# Python


@pytest.fixture(scope="session")
def runner():
    place = importlib.util.spec_from_file_location("detect", APPS / "runners/python/detect.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


class Replay:
    """A detector whose network gives the golden tensors."""

    def __init__(self, runner, bundle: Path) -> None:
        said = runner.read_spec(bundle / "spec.json")
        self.runner, self.bundle = runner, bundle
        self.spec, self.file = said["spec"], said["files"][0]

    def detect(self, picture):
        images, ratio = self.runner.prepare(self.spec, picture, None, self.file["canvas"])
        told = json.loads((self.bundle / "golden" / "golden.json").read_bytes())
        tensors = {
            name: np.fromfile(self.bundle / "golden" / f"{name}.f32", "<f4").reshape(shape)
            for name, shape in told["tensors"].items()
        }
        return self.runner.read(self.spec, tensors, images.shape, ratio)


def test_python_finds_what_the_pipeline_finds(runner, bundle):
    assert runner.check_golden(Replay(runner, bundle)) == []


def test_python_resizes_to_the_bits_of_opencv(runner):
    picture = np.random.default_rng(0).integers(0, 256, (62, 84, 3), dtype=np.uint8)
    for rows, columns in ((40, 50), (62, 20), (31, 42), (130, 84), (200, 301), (1, 1)):
        wanted = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(runner.resized(picture, rows, columns), wanted)


def test_python_runs_alone(tiny_bundle, tmp_path):
    program = tiny_bundle / "runners" / "python" / "detect.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(APPS / "runners/python/detect.py", program)
    code, said = say(sys.executable, "-I", program, "--golden")
    assert (code, said.strip()) == (0, "golden: passed")
    code, said = say(sys.executable, "-I", program, tiny_bundle / "golden" / "picture.png")
    told = json.loads((tiny_bundle / "golden" / "golden.json").read_bytes())
    assert len(json.loads(said)["faces"]) == len(told["faces"])
    (tmp_path / "text.jpg").write_text("no picture")
    code, said = say(sys.executable, "-I", program, tmp_path / "text.jpg")
    assert code == 1
    assert "text.jpg is no picture" in said


def test_python_finds_faults(broken):
    folder, says = broken
    code, said = say(
        sys.executable, "-I", APPS / "runners/python/detect.py", "--golden", "--bundle", folder
    )
    assert code == 1
    assert says in said
    assert "Traceback" not in said


def test_python_refuses_what_is_no_picture(runner, tiny_bundle):
    spec = runner.read_spec(tiny_bundle / "spec.json")["spec"]
    for picture in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(runner.BundleError, match="a picture is"):
            runner.prepare(spec, picture)


# C++


@pytest.fixture(scope="session")
def cpp(tmp_path_factory) -> Path:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine; `apt-get install g++` brings one")
    program = tmp_path_factory.mktemp("cpp") / "golden"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
    code, said = say(compiler, *flags, "-O1", CPP / "golden.cpp", "-o", program)
    assert code == 0, said
    return program


def test_cpp_finds_what_the_pipeline_finds(cpp, bundle):
    code, said = say(cpp, bundle)
    assert code == 0, said


def test_cpp_finds_faults(cpp, broken):
    folder, says = broken
    code, said = say(cpp, folder)
    assert code == 1, said
    assert says in said


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 5000, '{"a": tru}', '{"a": "\\', '{"version": 1e}']
)
def test_cpp_survives_what_is_no_json(cpp, tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    code, said = say(cpp, tmp_path)
    assert code == 1
    assert said.startswith("Error: ")


def test_cpp_detects_with_onnxruntime(cpp_onnxruntime, tiny_bundle):
    code, said = say(cpp_onnxruntime, tiny_bundle, "--golden")
    assert code == 0, said
    code, said = say(cpp_onnxruntime, tiny_bundle, tiny_bundle / "golden" / "picture.ppm")
    told = json.loads((tiny_bundle / "golden" / "golden.json").read_bytes())
    assert (code, len(said.splitlines())) == (0, len(told["faces"]))


def test_cpp_with_onnxruntime_finds_faults(cpp_onnxruntime, broken):
    folder, says = broken
    code, said = say(cpp_onnxruntime, folder, "--golden")
    assert code == 1, said
    assert says in said


def test_cpp_says_which_model_is_damaged(cpp_onnxruntime, tiny_bundle, tmp_path, landmarked):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:100])
    code, said = say(cpp_onnxruntime, folder, "--golden")
    assert code == 1
    assert "model.onnx: " in said
    assert "Copy the bundle again" in said
    Onnx(height=64, width=64).write(landmarked, model)
    code, said = say(cpp_onnxruntime, folder, "--golden")
    assert code == 1
    assert "its spec has" in said


@pytest.mark.parametrize("rules", RULES)
def test_cpp_cascades_find_what_the_pipeline_finds(
    cpp_onnxruntime, cascades, scene, tmp_path, rules
):
    pipeline = load(cascades[rules])
    write_bundle(tmp_path, pipeline, golden_of(pipeline, scene), path="nets")
    (tmp_path / "nets").symlink_to(cascades[rules])
    code, said = say(cpp_onnxruntime, tmp_path, "--golden")
    assert code == 0, said
    code, said = say(cpp_onnxruntime, tmp_path, tmp_path / "golden" / "picture.ppm")
    assert len(said.splitlines()) == len(pipeline.detect(scene)) >= 3
    lose_a_face(tmp_path)
    assert say(cpp_onnxruntime, tmp_path, "--golden")[0] == 1


def test_cpp_says_which_net_of_a_cascade_does_not_fit(cpp_onnxruntime, cascades, scene, tmp_path):
    pipeline = load(cascades["facenet"])
    write_bundle(tmp_path, pipeline, golden_of(pipeline, scene), path="nets")
    nets = Path(shutil.copytree(cascades["facenet"], tmp_path / "nets"))
    shutil.copyfile(nets / "rnet.onnx", nets / "onet.onnx")
    code, said = say(cpp_onnxruntime, tmp_path, "--golden")
    assert code == 1
    assert said.startswith("Error: ")
    (nets / "rnet.onnx").unlink()
    code, said = say(cpp_onnxruntime, tmp_path, "--golden")
    assert code == 1
    assert "rnet.onnx cannot be read" in said


def test_cpp_without_a_runtime_proves_no_cascade(cpp, cascades, scene, tmp_path):
    pipeline = load(cascades["facenet"])
    write_bundle(tmp_path, pipeline, golden_of(pipeline, scene), path="nets")
    code, said = say(cpp, tmp_path)
    assert code == 77, "what ctest takes for skipped"
    assert "detect --golden" in said


# JavaScript; the rest is in test_js.py and test_js_cascade.py


@pytest.fixture(scope="session")
def javascript(tmp_path_factory, ort_web) -> Path:
    folder = tmp_path_factory.mktemp("javascript")
    copy_runners(folder, "detection")
    install_runtime(folder / "js", ort_web)
    return folder / "js" / "detect.mjs"


def test_javascript_runs_alone(node, javascript, tiny_bundle):
    code, said = say(node, javascript, "--golden", tiny_bundle)
    assert code == 0, said
    picture = tiny_bundle / "golden" / "picture.ppm"
    code, said = say(node, javascript, picture, tiny_bundle)
    told = json.loads((tiny_bundle / "golden" / "golden.json").read_bytes())
    assert len(json.loads(said.splitlines()[-1])["faces"]) == len(told["faces"])


def test_javascript_finds_faults(node, javascript, broken):
    folder, says = broken
    code, said = say(node, javascript, "--golden", folder)
    assert code == 1, said
    assert says in said


def test_javascript_says_what_to_install(node, tmp_path, tiny_bundle):
    copy_runners(tmp_path, "detection")
    code, said = say(node, tmp_path / "js" / "detect.mjs", "--golden", tiny_bundle)
    assert code == 1
    assert "npm install onnxruntime-node" in said


# Kotlin


@pytest.mark.slow
def test_kotlin_finds_what_the_pipeline_finds(kotlin, bundle):
    code, said = say(*kotlin, "slimface.GoldenKt", bundle)
    assert code == 0, said


@pytest.mark.slow
def test_kotlin_finds_faults(kotlin, broken):
    folder, says = broken
    code, said = say(*kotlin, "slimface.GoldenKt", folder)
    assert code == 1, said
    assert says in said


class Taped:
    """A network of a cascade that writes down what it is asked, and what it answers."""

    def __init__(self, network, number: int, tape: list[np.ndarray]) -> None:
        self.network, self.number, self.tape = network, number, tape

    def __call__(self, images):
        shown = images.copy()
        raw = self.network(images)
        parts = (shown, raw.logits, raw.offsets, raw.landmarks)
        self.tape.append(np.float32([self.number]))
        for part in parts:
            values = np.zeros(0, np.float32) if part is None else part
            self.tape += [np.float32([values.size]), values.ravel()]
        return raw


@pytest.mark.slow
@pytest.mark.parametrize("rules", RULES)
def test_kotlin_asks_the_nets_of_a_cascade_what_the_pipeline_asks(
    kotlin, cascades, scene, tmp_path, rules
):
    pipeline = load(cascades[rules])
    tape: list[np.ndarray] = []
    nets = (pipeline.networks.pnet, pipeline.networks.rnet, pipeline.networks.onet)
    pipeline.networks = Networks(*(Taped(net, i, tape) for i, net in enumerate(nets)))
    proof = golden_of(pipeline, scene)
    write_bundle(tmp_path, pipeline, proof, path="nets")
    (tmp_path / "tape.f32").write_bytes(np.concatenate(tape).astype("<f4").tobytes())
    places = (tmp_path / "spec.json", tmp_path / "golden" / "picture.ppm", tmp_path / "tape.f32")
    code, said = say(*kotlin, "slimface.Replay", *places)
    assert code == 0, said
    found = np.array([line.split() for line in said.splitlines()], np.float32)
    assert len(found) == len(proof.faces) >= 3
    np.testing.assert_allclose(found[:, :4], proof.faces.boxes, atol=1e-3)
    np.testing.assert_allclose(found[:, 4], proof.faces.scores, atol=1e-6)
    points = found[:, 5:].reshape(-1, 5, 2)
    np.testing.assert_allclose(points, proof.faces.landmarks, atol=1e-3)


@pytest.fixture
def assets(tmp_path) -> Path:
    folder = tmp_path / "assets"
    (folder / "models").mkdir(parents=True)
    fill(folder, "one")
    return folder


def fill(assets: Path, text: str) -> None:
    from slimface.files import SEAL, seal

    (assets / "models" / "model.onnx").write_text(text)
    (assets / SEAL).unlink(missing_ok=True)
    seal(assets)


@pytest.mark.slow
def test_the_app_copies_its_model_once_and_anew_when_it_changes(kotlin, assets, tmp_path):
    copies = tmp_path / "copies"

    def copied() -> Path:
        code, said = say(*kotlin, "slimface.Store", assets, copies, "models/model.onnx")
        assert code == 0, said
        return Path(said.strip())

    first = copied()
    written = first.stat().st_mtime_ns
    assert copied() == first
    assert first.stat().st_mtime_ns == written, "it was not copied again"
    first.write_text("damaged")
    assert copied().read_text() == "one"
    fill(assets, "two")
    second = copied()
    assert second.read_text() == "two"
    assert list(copies.iterdir()) == [second], "the older one is gone"


@pytest.mark.slow
def test_the_app_refuses_a_model_that_is_not_the_one_listed(kotlin, assets, tmp_path):
    (assets / "models" / "model.onnx").write_text("another")
    words = (*kotlin, "slimface.Store", assets, tmp_path / "copies")
    code, said = say(*words, "models/model.onnx")
    assert code == 1
    assert "not the one in SHA256SUMS" in said
    assert list((tmp_path / "copies").iterdir()) == []
    assert "has no models/other.onnx" in say(*words, "models/other.onnx")[1]
    (assets / "models" / "model.onnx").unlink()
    assert "cannot be copied" in say(*words, "models/model.onnx")[1]
