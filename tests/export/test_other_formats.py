"""Every format: what is written runs, finds the same faces, and is refused when it is damaged."""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.deploy.pipeline import Picture, Pipeline, Settings
from slimface.deploy.runtimes import open_exported, sidecar_of
from slimface.errors import CheckpointError, MissingError, ParityError, RecipeError, UsageError
from slimface.export.cweights import rebuilt
from slimface.export.form import Form
from slimface.export.formats import FORMATS
from slimface.export.gate import export
from slimface.export.ncnn import Ncnn
from slimface.model.detector import Detector, RawTensors
from slimface.model.predictor import TorchNetwork

PACKAGES = {
    "openvino": ("openvino",),
    "ncnn": ("ncnn", "pnnx"),
    "torchscript": (),
    "torchmobile": (),
}
"""What a format needs beside torch; ExecuTorch and LiteRT, which are slow, have other tests."""


def written(kind: str, detector: Detector, folder: Path, **options: object) -> Path:
    for package in PACKAGES[kind]:
        pytest.importorskip(
            package, reason=f"{package} is not installed: pip install slimface[dev]"
        )
    form = FORMATS[kind].parse({"height": 64, "width": 96, **options}, where="test")
    path = folder / f"tiny{form.suffix}"
    form.write(detector, path, provenance={"parent": "nobody"})
    return path


@pytest.fixture(scope="module", params=PACKAGES)
def file(
    request: pytest.FixtureRequest, detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file of each format, for inputs of any size."""
    return written(request.param, detector, tmp_path_factory.mktemp(request.param))


def test_a_file_gives_the_numbers_of_torch_at_any_size(detector: Detector, file: Path) -> None:
    network = open_exported(file, threads=1).network
    for batch, height, width in ((1, 64, 96), (2, 131, 77), (1, 33, 300)):
        images = 100 * torch.randn(
            batch, 3, height, width, generator=torch.Generator().manual_seed(1)
        )
        with torch.no_grad():
            wanted = detector(images)
        found = network(images.numpy())
        np.testing.assert_allclose(found.logits, wanted.logits.numpy(), atol=1e-3)
        np.testing.assert_allclose(found.offsets, wanted.offsets.numpy(), atol=1e-3)


def test_a_file_says_what_it_is(detector: Detector, file: Path) -> None:
    pipeline = open_exported(file, threads=1)
    assert pipeline.spec == detector.spec
    assert pipeline.canvas is None
    provenance = json.loads(pipeline.network.metadata["slimface.provenance"])
    assert provenance["parent"] == "nobody"
    assert provenance["export"]["kind"] in FORMATS


def test_pictures_of_a_batch_are_those_one_by_one(file: Path) -> None:
    pipeline = open_exported(file, threads=1)
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8))
    settings = Settings(score_floor=0.3)
    for one, picture in zip(pipeline.detect_batch(pictures, settings), pictures, strict=True):
        alone = pipeline.detect(picture, settings)
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-2)


def test_a_truncated_file_is_an_error_and_not_the_end(file: Path, tmp_path: Path) -> None:
    """In a process of its own: some runtimes would abort it."""
    code = (
        "import sys\nfrom slimface.deploy.runtimes import open_exported\n"
        "from slimface.errors import SlimfaceError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_exported(path)\n"
        "    except SlimfaceError as error:\n        print('refused', error)\n"
    )
    victims = [one for one in file.parent.iterdir() if not one.name.endswith(".json")]
    cut = []
    for victim, share in itertools.product(victims, (0.0, 0.01, 0.5, 0.99)):
        folder = tmp_path / str(len(cut))
        shutil.copytree(file.parent, folder)
        content = victim.read_bytes()
        (folder / victim.name).write_bytes(content[: int(share * len(content))])
        cut.append(folder / file.name)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, cut)],
        check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == len(cut), done.stdout


def test_a_changed_bit_in_the_weights_is_noticed(detector: Detector, tmp_path: Path) -> None:
    path = written("openvino", detector, tmp_path)
    weights = bytearray(path.with_suffix(".bin").read_bytes())
    weights[100] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"tiny\.bin: not the file that was exported"):
        open_exported(path)


def test_a_file_without_its_sidecar_says_what_is_missing(
    detector: Detector, tmp_path: Path
) -> None:
    path = written("ncnn", detector, tmp_path)
    sidecar_of(path).unlink()
    with pytest.raises(MissingError, match=r"spec\.json is not beside it"):
        open_exported(path)


def test_a_sidecar_names_no_file_elsewhere(detector: Detector, tmp_path: Path) -> None:
    path = written("ncnn", detector, tmp_path)
    said = json.loads(sidecar_of(path).read_text())
    said["slimface.files"]["../../etc/passwd"] = "0" * 64
    sidecar_of(path).write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="is a path"):
        open_exported(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"slimface.files": 3}', b"\xff"])
def test_a_damaged_sidecar_is_named(detector: Detector, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ncnn.param"
    path.write_bytes(b"7767517\n")
    sidecar_of(path).write_bytes(content)
    with pytest.raises(CheckpointError, match="not a description"):
        open_exported(path)


def test_a_pickle_named_pt_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="could run any code"):
        open_exported(path)
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="not a TorchScript file"):
        open_exported(path)


@pytest.mark.parametrize("kind", PACKAGES)
def test_landmarks_and_boxes_decoded_in_a_graph_of_one_size(
    kind: str, landmarked: Detector, tmp_path: Path
) -> None:
    path = written(kind, landmarked, tmp_path, decode=True, dynamic=False)
    pipeline = open_exported(path, threads=1)
    assert pipeline.canvas == (64, 96)
    ours = Pipeline(landmarked.spec, TorchNetwork(landmarked), canvas=(64, 96))
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    wanted = ours.detect(picture, Settings(score_floor=0.3))
    found = pipeline.detect(picture, Settings(score_floor=0.3))
    assert len(wanted) > 3
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.05)
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.05)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "ncnn"])
def test_half_precision_halves_the_file_and_keeps_the_faces(
    kind: str, detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    for package in PACKAGES.get(kind, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    sizes = {}
    for precision in ("float32", "float16"):
        form = FORMATS[kind].parse(
            {"height": 64, "width": 96, "precision": precision}, where="test"
        )
        path = tmp_path / precision / f"tiny{form.suffix}"
        report = export(detector, path, form, pictures=pictures)
        assert report.agrees
        files = path.parent.iterdir()
        # Graphs in text and descriptions stay as they are; weights are what is halved.
        sizes[precision] = sum(
            one.stat().st_size for one in files if one.suffix in (".onnx", ".bin")
        )
    assert sizes["float16"] < 0.9 * sizes["float32"]


def test_numbers_beyond_float16_are_refused_with_the_layer(
    detector: Detector, tmp_path: Path
) -> None:
    import copy

    large = copy.deepcopy(detector)
    with torch.no_grad():
        large.conf[0].bias[0] = 1e6
    with pytest.raises(CheckpointError, match=r"conf\.0.*\nKeep float32"):
        FORMATS["onnx"].parse({"precision": "float16"}, where="test").write(
            large, tmp_path / "x.onnx"
        )


def test_ncnn_does_not_decode_at_any_size(detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    with pytest.raises(UsageError, match="--fixed"):
        Ncnn(decode=True).write(detector, tmp_path / "x.ncnn.param")


class Rolled(Detector):
    """Has an operation that ncnn does not."""

    def __init__(self, inner: Detector) -> None:
        super().__init__(inner.spec)
        self.inner = inner

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.inner.maps(images + torch.special.erfcx(images))

    def read(self, maps: tuple[torch.Tensor, ...]) -> RawTensors:
        return self.inner.read(maps)


def test_an_operation_that_ncnn_lacks_is_named(detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    with pytest.raises(ParityError, match="erfcx"):
        Ncnn(height=64, width=64).write(Rolled(detector), tmp_path / "x.ncnn.param")


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("openvino", "openvino", "openvino"), ("ncnn", "pnnx", "ncnn"),
     ("executorch", "executorch", "executorch")],
)  # fmt: skip
def test_a_library_that_is_not_there_is_named_with_its_extra(
    kind: str, package: str, extra: str, detector: Detector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # With its parts: those that another test has imported would still be found.
    for name in {package, *(one for one in sys.modules if one.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match=rf"slimface\[{extra}\]"):
        FORMATS[kind].parse({}, where="test").write(detector, tmp_path / "x")


def test_litert_says_how_to_make_its_environment(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["litert"].parse({"height": 64, "width": 64}, where="test")
    monkeypatch.setenv("SLIMFACE_LITERT_PYTHON", str(tmp_path / "python"))
    with pytest.raises(MissingError, match="cannot be run"):
        form.write(detector, tmp_path / "x.tflite")
    if importlib.util.find_spec("litert_torch") is None:
        monkeypatch.setenv("SLIMFACE_LITERT_PYTHON", sys.executable)
        with pytest.raises(MissingError, match=r"pip install torch.* litert-torch"):
            form.write(detector, tmp_path / "x.tflite")


def test_options_of_other_formats_are_refused() -> None:
    for kind, option in (("ncnn", {"opset": 18}), ("executorch", {"precision": "float16"})):
        with pytest.raises(RecipeError, match=next(iter(option))):
            FORMATS[kind].parse(option, where="test")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_a_value_that_a_recipe_can_spell(kind: str) -> None:
    from slimface.export.step import Export

    step = Export.parse({"format": {"kind": kind}}, where="test")
    assert isinstance(step.format, Form)
    assert step.format.kind == kind


def test_c_ready_weights_are_complete_and_compile(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    path = tmp_path / "tiny.cweights"
    form = FORMATS["cweights"].parse({"height": 64, "width": 96}, where="test")
    assert export(detector, path, form, pictures=pictures).agrees
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source = tmp_path / "read.c"
    source.write_text(
        '#include "tiny.cweights/weights.h"\n#include <stdio.h>\n'
        "int main(void) { const struct slimface_tensor *last = slimface_tensors"
        " + SLIMFACE_TENSORS - 1;\n"
        'printf("%zu %d", last->offset + last->bytes, SLIMFACE_WEIGHTS_BYTES); return 0; }\n'
    )
    program = tmp_path / "read"
    subprocess.run([compiler, "-Wall", "-Werror", "-o", program, source], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert said == [str((path / "weights.bin").stat().st_size)] * 2
    (path / "weights.bin").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="not a complete folder"):
        rebuilt(path)


@pytest.mark.slow
def test_executorch_finds_the_same_faces(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    pytest.importorskip("executorch", reason="executorch is not installed (553 MB)")
    form = FORMATS["executorch"].parse({"height": 64, "width": 96}, where="test")
    path = tmp_path / "tiny.pte"
    assert export(detector, path, form, pictures=pictures).agrees
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not the file that was exported"):
        open_exported(path)


@pytest.mark.slow
def test_litert_finds_the_same_faces(
    detector: Detector, tmp_path: Path, pictures: list[tuple[str, Picture]]
) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    if not os.environ.get("SLIMFACE_LITERT_PYTHON"):
        pytest.skip("SLIMFACE_LITERT_PYTHON names no environment with litert-torch (1.1 GB)")
    form = FORMATS["litert"].parse({"height": 64, "width": 96}, where="test")
    assert export(detector, tmp_path / "tiny.tflite", form, pictures=pictures).agrees
