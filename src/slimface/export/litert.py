"""LiteRT: one file (``.tflite``) for Android and microcontrollers.

The converter brings 1.1 GB of packages, some of which do not get on with ours, so it has an
environment of its own. ``SLIMFACE_LITERT_PYTHON`` names its Python; without it this one is tried.

    python3 -m venv litert && litert/bin/pip install torch==2.14.1 litert-torch
    export SLIMFACE_LITERT_PYTHON=$PWD/litert/bin/python
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from slimface.errors import MissingError, ParityError
from slimface.export.form import Fixed, write_sidecar
from slimface.model.detector import Detector

PYTHON = "SLIMFACE_LITERT_PYTHON"
"""The environment variable that names the Python with litert-torch."""

_SECONDS = 1800

_CONVERT = """
import json, sys
try:
    import litert_torch, torch
except ImportError as error:
    print(json.dumps({"missing": error.name}))
    sys.exit()
program = torch.export.load(sys.argv[1])
litert_torch.convert(program.module(), program.example_inputs[0]).export(sys.argv[2])
from importlib.metadata import version
print(json.dumps({"litert-torch": version("litert-torch")}))
"""
"""What runs there; it needs no slimface. The last line it prints is for us."""


class LiteRt(Fixed):
    """Write a detector for LiteRT, once TensorFlow Lite: one picture of one size."""

    kind: Literal["litert"] = "litert"
    precision: Literal["float32"] = "float32"

    suffix: ClassVar[str] = ".tflite"
    extra: ClassVar[str] = "litert"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``: ``path`` and its sidecar."""
        python = _python()
        graph = self.graph(detector)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            source = Path(folder) / "model.pt2"
            torch.export.save(torch.export.export(graph, (self.example(detector),)), source)
            versions = _convert(python, source, path)
        write_sidecar(path, self.metadata(detector, provenance, **versions))


def _python() -> str:
    """Return the Python that converts; find out before the work if there is none."""
    python = shutil.which(os.environ.get(PYTHON, sys.executable))
    if python is None:
        raise MissingError(f"{PYTHON} is {os.environ[PYTHON]}, which cannot be run.\n{_install()}")
    if python == sys.executable and importlib.util.find_spec("litert_torch") is None:
        raise _absent("litert_torch", python)
    return python


def _install() -> str:
    return (
        f"Make an environment for it and set {PYTHON} to its Python:\n"
        "  python3 -m venv litert && litert/bin/pip install "
        f"torch=={torch.__version__.partition('+')[0]} litert-torch"
    )


def _absent(package: str, python: str) -> MissingError:
    return MissingError(
        f"Exporting to litert needs the package {package}, which {python} does not have.\n"
        f"{_install()}"
    )


def _convert(python: str, source: Path, path: Path) -> dict[str, str]:
    """Convert out of process, and return the versions of what did it."""
    done = subprocess.run(
        [python, "-c", _CONVERT, str(source), str(path)],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    )
    try:
        said: dict[str, str] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        said = {}
    if "missing" in said:
        raise _absent(said["missing"], python)
    if done.returncode or not said:
        raise ParityError(
            f"litert-torch cannot express the model, or failed: {done.stderr.strip()[-700:]}\n"
            "Export it to another format, or replace the operation that it names."
        )
    return said
