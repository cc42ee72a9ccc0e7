"""Every runner of a bundle, built and run on its golden picture, for real networks.

    python benchmarks/runners.py --scratch /tmp/runners

Needs the published weights; what a machine lacks (a compiler, npm, a JVM with Kotlin) is named and
left out. C++ is built without an engine, with OpenVINO, whose package brings the headers, and with
ONNX Runtime, whose headers come from Debian: see ``onnxruntime_root.py``.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from onnxruntime_root import kept, onnxruntime_root

from slimface.errors import MissingError

MODELS = ("eresfd", "retinaface-mobilenet025", "extd-32", "mtcnn")
NODE = "onnxruntime-node@1.30.0"


def main() -> int:
    """Print a line for each network and runner; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=MODELS)
    asked = parser.parse_args()
    asked.scratch.mkdir(parents=True, exist_ok=True)
    bundles = [bundled(model, asked.scratch) for model in asked.models]
    failed = 0
    # Cascades have no runner in some languages, and no golden tensors.
    whole = [one for one in bundles if (one / "runners" / "python").is_dir()]
    for name, language, prove in runners(asked.scratch, whole[0]):
        for bundle in whole if "tensors" in name else bundles:
            if not (bundle / "runners" / language).is_dir():
                continue
            done = prove(bundle)
            print(f"{bundle.name}: {name}: {'passed' if done.returncode == 0 else 'FAILED'}")
            if done.returncode:
                print(done.stdout, done.stderr)
            failed += done.returncode != 0
    return failed


def bundled(model: str, scratch: Path) -> Path:
    """Make and verify a bundle."""
    folder = scratch / model
    slimface = Path(sys.executable).with_name("slimface")
    run(slimface, "-q", "export", model, "--format", "bundle", "--no-measure", "--out", folder)
    print(run(slimface, "verify", folder).stdout)
    return folder


Prove = Callable[[Path], "subprocess.CompletedProcess[str]"]


def runners(scratch: Path, bundle: Path) -> Iterator[tuple[str, str, Prove]]:
    """Build each runner and yield its name, its folder, and how to run it on a bundle."""
    sources = bundle / "runners"
    python = sources / "python" / "detect.py"
    yield (
        "Python, ONNX Runtime",
        "python",
        lambda one: run(sys.executable, python, "--golden", "--bundle", one, check=False),
    )
    if shutil.which("cmake"):
        engines = dict(engines_of_cpp())
        for name, options in {"": [], **engines}.items():
            build = scratch / f"build {name}".strip()
            run("cmake", "-S", sources / "cpp", "-B", build, *options)
            run("cmake", "--build", build)
        build = scratch / "build"
        yield "C++, golden tensors", "cpp", lambda one: run(build / "golden", one, check=False)
        for name in engines:
            program = scratch / f"build {name}" / "detect"
            yield f"C++, {name}", "cpp", partial(detected, program)
    else:
        print("C++: left out, no cmake on this machine")
    if shutil.which("npm"):
        # Its install script would fetch what only graphics chips need.
        node = scratch / "node"
        shutil.copytree(sources / "js", node, dirs_exist_ok=True)
        run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", NODE, cwd=node)
        yield (
            "JavaScript, ONNX Runtime",
            "js",
            lambda one: run("node", node / "detect.mjs", "--golden", one, check=False),
        )
    else:
        print("JavaScript: left out, no npm on this machine")
    kotlin = kotlin_of(scratch, sources / "kotlin")
    if kotlin:
        yield (
            "Kotlin, golden tensors",
            "kotlin",
            lambda one: run(*kotlin, "slimface.GoldenKt", one, check=False),
        )
    else:
        print("Kotlin: left out; default-jdk-headless and kotlin-jupyter-kernel bring it")


def engines_of_cpp() -> Iterator[tuple[str, list[str]]]:
    """Yield the engines that C++ can be built with here, and the options of CMake for each."""
    openvino = importlib.util.find_spec("openvino")
    if openvino and openvino.origin:
        cmake = Path(openvino.origin).parent / "cmake"
        yield "OpenVINO", ["-DENGINE=openvino", f"-DOpenVINO_DIR={cmake}"]
    else:
        print("C++, OpenVINO: left out, openvino is not installed")
    try:
        root = onnxruntime_root(kept())
    except MissingError as error:
        print(f"C++, ONNX Runtime: left out, {str(error).partition(chr(10))[0]}")
    else:
        yield "ONNX Runtime", ["-DENGINE=onnxruntime", f"-DONNXRUNTIME_ROOT={root}"]


def detected(program: Path, bundle: Path) -> "subprocess.CompletedProcess[str]":
    """Prove a program of C++ on a bundle."""
    return run(program, bundle, "--golden", check=False)


def kotlin_of(scratch: Path, sources: Path) -> list[str]:
    """Compile the Kotlin runner; return how to run it, or nothing where there is no compiler."""
    kernel = importlib.util.find_spec("run_kotlin_kernel")
    if not shutil.which("java") or kernel is None or kernel.origin is None:
        return []
    jars = Path(kernel.origin).parent / "jars"
    library = str(next(jars.glob("kotlin-stdlib-*.jar")))
    classes = str(scratch / "kotlin")
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    names = ("Json.kt", "Slimface.kt", "Golden.kt")
    path = os.pathsep.join(map(str, jars.glob("*.jar")))
    options = ("-no-stdlib", "-no-reflect", "-cp", library, "-d", classes)
    run("java", "-cp", path, compiler, *options, *(sources / name for name in names))
    return ["java", "-cp", os.pathsep.join([classes, library])]


def run(
    *words: object, check: bool = True, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program."""
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
