"""Web: a static folder that finds faces in the browser, offline once it is served."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimface.deploy.draw import write_picture
from slimface.deploy.pipeline import Picture
from slimface.errors import UsageError
from slimface.export.bundle import APPS, described, write_spec
from slimface.export.gate import export
from slimface.export.golden import golden
from slimface.export.onnx import Onnx
from slimface.export.ort_web import copy_runtime
from slimface.export.parity import ParityReport, Tolerance
from slimface.files import beside_folder, write_text
from slimface.loading import load
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN

PAGE = ("index.html", "style.css", "app.js", "worker.js", "README.md")
MODEL = "model.onnx"
NETS = "model"
"""Folder of the three networks of a cascade."""


def export_web(
    detector: Detector,
    folder: Path,
    form: Onnx,
    *,
    runtime: Path | None = None,
    pictures: Iterable[tuple[str, Picture]] | None = None,
    score: float = 0.3,
    tolerance: Tolerance | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Write a page that runs a detector on pictures and the webcam.

    Args:
        detector: What to export.
        folder: The folder to make; one that is there already is replaced at the very end.
        form: How the network leaves.
        runtime: The npm package of ONNX Runtime Web as a file; fetched with npm if not given.
        pictures: As for ``slimface.export.gate.export``, like the arguments that follow.
        score: See there.
        tolerance: See there.
        provenance: See there.

    Returns:
        How well the exported file agrees with the detector.

    Raises:
        UsageError: The model is no detector, or a cascade whose first network would take one size.
        ParityError: The exported file finds other faces, or none at all.
        MissingError, CheckpointError: The runtime cannot be had, or is another.
    """
    _check(detector, form)
    model = NETS if isinstance(detector, MTCNN) else MODEL
    with beside_folder(folder) as part:
        report = export(
            detector,
            part / model,
            form,
            pictures=pictures,
            score=score,
            tolerance=tolerance,
            provenance=provenance,
        )
        write_page(part, form, provenance or {}, model=model)
        copy_runtime(part / "vendor", runtime)
    return report


def write_page(
    folder: Path, form: Onnx, provenance: Mapping[str, Any], *, model: str = MODEL
) -> None:
    """Write the page for the model in a folder; all of it but the runtime."""
    for page in (*(APPS / "web" / file for file in PAGE), *(APPS / "js").iterdir()):
        (folder / page.name).write_bytes(page.read_bytes())
    pipeline = load(folder / model)
    proof = golden(pipeline)
    write_picture(folder / "sample.png", proof.picture)
    write_text(folder / "golden.json", json.dumps(proof.as_json(), indent=1) + "\n")
    write_spec(folder, pipeline.spec, [described(pipeline, model, form)], provenance)


def _check(detector: Detector, form: Onnx) -> None:
    task = detector.spec.task
    if task not in ("detection", "cascade"):
        raise UsageError(
            f"{detector.spec.name} is for {task}; the page finds faces.\n"
            "Export it to one file, such as --format onnx."
        )
    if isinstance(detector, MTCNN) and not form.dynamic:
        raise UsageError(
            f"{detector.spec.name} is a cascade, whose first network looks at pictures of many "
            "sizes; the page cuts none into tiles.\nLeave --fixed out."
        )
