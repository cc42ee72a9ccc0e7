"""Android: a Gradle project around an ONNX file, with its golden picture as a test."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimface.deploy.pipeline import Picture
from slimface.errors import UsageError
from slimface.export.bundle import APPS, GOLDEN, copy_tree, described, write_spec
from slimface.export.gate import export
from slimface.export.golden import golden
from slimface.export.onnx import Onnx
from slimface.export.parity import ParityReport, Tolerance
from slimface.files import beside_folder, seal
from slimface.loading import load
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN

SHARED = ("Json.kt", "Slimface.kt", "OnnxDetector.kt")
"""Sources of the Kotlin runner that the app is made of."""


def export_android(
    detector: Detector,
    folder: Path,
    form: Onnx,
    *,
    pictures: Iterable[tuple[str, Picture]] | None = None,
    score: float = 0.3,
    tolerance: Tolerance | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Write an Android project: camera preview with faces, and a class for other apps.

    Arguments, result and errors are those of ``slimface.export.gate.export``.

    Raises:
        UsageError: The detector is a cascade, or no detector at all.
    """
    if isinstance(detector, MTCNN):
        raise UsageError(
            f"{detector.spec.name} is a cascade; the app runs detectors of one network.\n"
            "Choose one (slimface zoo), export a page for phones (--format web), or put "
            "Cascade.kt of its bundle (--format bundle) into an app of your own."
        )
    if detector.spec.task != "detection":
        raise UsageError(
            f"{detector.spec.name} is for {detector.spec.task}; the app finds faces.\n"
            "Export it to one file, such as --format onnx."
        )
    with beside_folder(folder) as part:
        copy_tree(APPS / "android", part)
        source = part / "app" / "src"
        assets = source / "main" / "assets" / "slimface"
        model = assets / "models" / "model.onnx"
        report = export(
            detector,
            model,
            form,
            pictures=pictures,
            score=score,
            tolerance=tolerance,
            provenance=provenance,
        )
        _copy_runner(source)
        pipeline = load(model)
        golden(pipeline).write(source / "test" / GOLDEN)
        entry = described(pipeline, model.relative_to(assets).as_posix(), form)
        write_spec(assets, detector.spec, [entry], provenance or {})
        # The app tells a new model from the one it has copied by these digests.
        seal(assets)
    return report


def _copy_runner(source: Path) -> None:
    runner = APPS / "runners" / "kotlin"
    for name in SHARED:
        (source / "main/kotlin/slimface" / name).write_bytes((runner / name).read_bytes())
    (source / "test/kotlin/slimface/Golden.kt").write_bytes((runner / "Golden.kt").read_bytes())
