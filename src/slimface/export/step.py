"""Export: the step that writes the file a device runs, and checks it."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, TypeVar

from pydantic import Field

from slimface.core.value import Value
from slimface.data.folders import ClassSource
from slimface.data.source import Source
from slimface.deploy.media import Picture, read_picture
from slimface.export.classes import export_classifier
from slimface.export.formats import AnyFormat
from slimface.export.gate import export
from slimface.export.onnx import Onnx
from slimface.export.pictures import sample_pictures
from slimface.files import SEAL, bytes_of
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN
from slimface.order import FILE, Terms
from slimface.step import Context

N = TypeVar("N", Detector, Classifier)


class Export(Value):
    """Write the model to a file, compare it on decoded boxes of real pictures, and keep it."""

    kind: Literal["export"] = "export"
    format: AnyFormat = Onnx()
    file: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Name of the file in the run folder; empty: ``model`` with the suffix of the format. A cascade
    becomes a folder of this name."""

    pictures: int = Field(default=20, gt=0)
    """So many validation pictures decide whether the file agrees with the model."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(leaves=frozenset({FILE}), changes=False)

    def __call__(self, detector: N, context: Context) -> N:
        """Write the file and return the detector as it came.

        Raises:
            ParityError: The file finds other faces than the model, and was removed.
        """
        if context.source is None:
            pictures = sample_pictures(self.pictures)
        else:
            pictures = _seen(context.source, self.pictures)
        suffix = "" if isinstance(detector, MTCNN) else self.format.suffix
        path = context.folder / (self.file or f"model{suffix}")
        report = (
            export_classifier(detector, path, self.format, pictures=pictures)
            if isinstance(detector, Classifier)
            else export(detector, path, self.format, pictures=pictures)
        )
        # That of a folder seals all its files.
        content = (path / SEAL if path.is_dir() else path).read_bytes()
        record = {
            "file": path.name,
            "format": self.format.kind,
            "bytes": bytes_of(path),
            "sha256": hashlib.sha256(content).hexdigest(),
            "parity": report.model_dump(mode="json"),
        }
        context.record("export", record)
        return detector


def _seen(source: Source, count: int) -> Iterator[tuple[str, Picture]]:
    """The first validation pictures."""
    pictures: Iterable[Any] = (
        source.labelled("val") if isinstance(source, ClassSource) else source.pictures("val")
    )
    for one in islice(pictures, count):
        yield one.name, read_picture(one.path)
