"""A small detector with something to say, and the files it was exported to, once for all tests."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import slimface.export
from slimface.data.drawn import Drawn, draw
from slimface.deploy.pipeline import Picture
from slimface.errors import MissingError
from slimface.export.cascade import write_cascade
from slimface.export.onnx import Onnx
from slimface.export.ort_web import copy_runtime
from slimface.files import home
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.model.eresfd import naver
from slimface.model.retinaface import retinaface
from tests.export.cascades import RULES

APPS = Path(slimface.export.__file__).parent / "apps"
KOTLIN = APPS / "runners" / "kotlin"


def lively(detector: Detector, seed: int = 0) -> Detector:
    """Give a random detector opinions: spread scores, a few hundred of them high."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in detector.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.Conv2d) and name in detector.head_names:
                module.weight.normal_(std=0.2, generator=generator)
                if module.out_channels != 4 or name.startswith("conf"):
                    module.bias[-1] -= 1.5
    return detector.eval()


@pytest.fixture(scope="session")
def detector() -> Detector:
    return lively(build(naver("tiny", width=8), seed=0))


@pytest.fixture(scope="session")
def landmarked() -> Detector:
    return lively(build(retinaface("tiny"), seed=0))


@pytest.fixture(scope="session")
def raw_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "tiny.onnx"
    Onnx(height=96, width=128).write(detector, path, provenance={"parent": "nobody"})
    return path


@pytest.fixture(scope="session")
def decoded_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoded") / "tiny.onnx"
    Onnx(height=96, width=128, decode=True).write(detector, path)
    return path


@pytest.fixture(scope="session")
def pictures() -> list[tuple[str, Picture]]:
    rng = np.random.default_rng(0)
    sizes = [(96, 128), (131, 77), (64, 64)]
    return [(f"noise {h}x{w}", rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


def say(*words: object) -> tuple[int, str]:
    """Run a program; return its exit code and all that it says."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="session")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js on this machine; `apt-get install nodejs` brings it")
    return found


@pytest.fixture(scope="session")
def ort_web(tmp_path_factory) -> Path:
    """A folder with ONNX Runtime Web, as a page has it."""
    folder = tmp_path_factory.mktemp("runtime") / "vendor"
    try:
        copy_runtime(folder)
    except MissingError as error:
        pytest.skip(str(error).partition("\n")[0])
    return folder


@pytest.fixture(scope="session")
def cpp_onnxruntime(tmp_path_factory) -> Path:
    """``detect`` with ONNX Runtime, compiled against the headers that are on this machine."""
    places = (os.environ.get("ONNXRUNTIME_ROOT"), home() / "onnxruntime-cpp", "/usr")
    roots = [Path(place) for place in places if place]
    headers = [root / "include" / folder for root in roots for folder in ("", "onnxruntime")]
    found = [path for path in headers if (path / "onnxruntime_cxx_api.h").is_file()]
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or not found:
        pytest.skip(
            "no headers of ONNX Runtime, or no C++ compiler: `python "
            "benchmarks/onnxruntime_root.py` fetches them (85 kB), ONNXRUNTIME_ROOT names a release"
        )
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("cpp onnxruntime")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O0", "-isystem", found[0]]
    linked = [f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    source, program = APPS / "runners" / "cpp" / "detect_onnxruntime.cpp", folder / "detect"
    code, said = say(compiler, *flags, source, "-o", program, *linked)
    assert code == 0, said
    return program


@pytest.fixture(scope="session")
def cascades(tmp_path_factory) -> dict[str, Path]:
    """Exported cascades, by the name of their rules."""
    made = {}
    for name, cascade in RULES.items():
        made[name] = tmp_path_factory.mktemp(f"cascade {name}")
        write_cascade(cascade(), made[name], Onnx())
    return made


@pytest.fixture(scope="session")
def scene() -> Picture:
    """A small drawn scene with faces."""
    return draw(Drawn(count=1, height_px=90, width_px=121, seed=2, portrait_share=0), 0)[0]


def install_runtime(folder: Path, ort_web: Path) -> None:
    """Let the runner in a folder find ONNX Runtime Web where it looks for onnxruntime-node."""
    package = folder / "node_modules" / "onnxruntime-node"
    shutil.copytree(ort_web, package)
    (package / "package.json").write_text('{"type": "module", "exports": "./main.mjs"}')
    (package / "main.mjs").write_text(
        'import { env } from "./ort.wasm.min.mjs";\n'
        'export * from "./ort.wasm.min.mjs";\n'
        "env.wasm.numThreads = 1;\n"
    )


def kotlin_compiler() -> tuple[list[str], Path]:
    """Return how to compile Kotlin, and its standard library.

    The package kotlin-jupyter-kernel brings the compiler of JetBrains as a library.
    """
    java = shutil.which("java")
    kernel = importlib.util.find_spec("run_kotlin_kernel")
    if java is None or kernel is None or kernel.origin is None:
        pytest.skip(
            "no Kotlin on this machine; `apt-get install default-jdk-headless` and "
            "`pip install kotlin-jupyter-kernel` bring it"
        )
    jars = Path(kernel.origin).parent / "jars"
    library = next(jars.glob("kotlin-stdlib-*.jar"))
    quick = ["-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    path = os.pathsep.join(map(str, jars.glob("*.jar")))
    return [java, *quick, "-cp", path, compiler, "-no-stdlib", "-no-reflect"], library


@pytest.fixture(scope="session")
def kotlin(tmp_path_factory) -> list[str]:
    """How to run the Kotlin runner and the app's store of models, compiled for a plain JVM."""
    compiler, library = kotlin_compiler()
    classes = tmp_path_factory.mktemp("kotlin")
    own = ("Json.kt", "Slimface.kt", "Golden.kt", "Windows.kt", "Cascade.kt")
    sources = [KOTLIN / name for name in own]
    sources.append(APPS / "android/app/src/main/kotlin/slimface/ModelStore.kt")
    sources.extend(Path(__file__).parent / "kotlin" / name for name in ("Store.kt", "Replay.kt"))
    code, said = say(*compiler, "-Werror", "-cp", library, "-d", classes, *sources)
    assert code == 0, said
    return [compiler[0], *compiler[1:3], "-cp", os.pathsep.join([str(classes), str(library)])]
