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

PAGE = ("index.html", "style.css", "app.js", "worker.js", "README.md")
MODEL = "model.onnx"


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
        UsageError: The detector is a cascade.
        ParityError: The exported file finds other faces, or none at all.
        MissingError, CheckpointError: The runtime cannot be had, or is another.
    """
    if detector.spec.task != "detection":
        raise UsageError(
            f"{detector.spec.name} is for {detector.spec.task}; the page runs detectors of one "
            "network.\nExport it to onnx, or choose another model (slimface zoo)."
        )
    with beside_folder(folder) as part:
        report = export(
            detector,
            part / MODEL,
            form,
            pictures=pictures,
            score=score,
            tolerance=tolerance,
            provenance=provenance,
        )
        write_page(part, form, provenance or {})
        copy_runtime(part / "vendor", runtime)
    return report


def write_page(folder: Path, form: Onnx, provenance: Mapping[str, Any]) -> None:
    """Write the page for the ``model.onnx`` in a folder; all of it but the runtime."""
    for page in (*(APPS / "web" / file for file in PAGE), APPS / "js" / "slimface.js"):
        (folder / page.name).write_bytes(page.read_bytes())
    pipeline = load(folder / MODEL)
    proof = golden(pipeline)
    write_picture(folder / "sample.png", proof.picture)
    write_text(folder / "golden.json", json.dumps(proof.as_json(), indent=1) + "\n")
    write_spec(folder, pipeline.spec, [described(pipeline, MODEL, form)], provenance)
