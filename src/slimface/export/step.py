"""Export: the step that leaves a file beside the model."""

import logging
from typing import Literal

from pydantic import Field

from slimface.core.record import Fraction
from slimface.core.value import Value
from slimface.export.gate import export
from slimface.export.onnx import Onnx
from slimface.export.parity import Tolerance
from slimface.export.pictures import annotated_pictures, sample_pictures
from slimface.model.checkpoint import fingerprint
from slimface.model.detector import Detector
from slimface.step import Context

log = logging.getLogger(__name__)


class Export(Value):
    """Write the model to a file that must find the same faces; the model goes on as it is."""

    kind: Literal["export"] = "export"
    format: Onnx = Onnx()
    """The format, with its options."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the file, without suffix."""

    pictures: int = Field(default=20, gt=0)
    """So many of the validation pictures are compared; drawn scenes where there are none."""

    score: Fraction = 0.3
    """Faces below this score are not compared."""

    tolerance: Tolerance | None = None
    """How far the file may differ; what its precision can be held to if not given."""

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Write the file into the context's folder and return the detector.

        Raises:
            ParityError: The file finds other faces; nothing was kept.
        """
        path = context.folder / f"{self.name}{self.format.suffix}"
        if context.source is None:
            pictures = sample_pictures(self.pictures)
        else:
            pictures = annotated_pictures(context.source.pictures("val"), limit=self.pictures)
        report = export(
            detector,
            path,
            self.format,
            pictures=context.track(pictures, f"checking {path.name}", total=self.pictures),
            score=self.score,
            tolerance=self.tolerance,
            provenance={"model_fingerprint": fingerprint(detector), "seed": context.seed},
        )
        context.record(
            "export",
            {
                "file": path.name,
                "format": self.format.kind,
                "bytes": path.stat().st_size,
                "parity": report.model_dump(mode="json"),
            },
        )
        return detector
