"""Quantize: the step that writes the model in eight bits, runs the file and says what it cost."""

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from slimface.compress.quantize.export import spread, write_float
from slimface.compress.quantize.ptq import SUFFIXES, quantize
from slimface.compress.quantize.settings import Quantization
from slimface.compress.quantize.side import agreement, speed
from slimface.errors import UsageError
from slimface.files import SEAL, bytes_of
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN
from slimface.order import FILE, LEARNT, Terms
from slimface.step import Context

log = logging.getLogger(__name__)

N = TypeVar("N", Detector, Classifier)


class Quantize(Quantization):
    """Write the model in eight bits; the model itself goes on as it is.

    It is calibrated on training pictures. An evaluation of the ``file`` behind it runs the file in
    its own runtime, and a benchmark times it.
    """

    kind: Literal["quantize"] = "quantize"
    file: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Name of the file in the run folder; empty: ``model-int8`` with the suffix of the runtime. A
    cascade becomes a folder of this name."""

    pictures: int = Field(default=32, gt=0)
    """Training pictures to calibrate on."""

    compared: int = Field(default=20, gt=0)
    """Validation pictures on which the file is compared with the one in float32."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(needs=frozenset({LEARNT}), leaves=frozenset({FILE}), changes=False, final=True)

    def __call__(self, detector: N, context: Context) -> N:
        """Write the file and return the model as it came.

        Raises:
            UsageError: There are no pictures, or nothing can be quantised.
        """
        if context.source is None:
            raise UsageError(
                "Eight bits are calibrated on pictures, and there are none.\n"
                "Name them with --data DIR, or the recipe's source."
            )
        suffix = "" if isinstance(detector, MTCNN) else SUFFIXES[self.runtime]
        path = context.folder / (self.file or f"model-int8{suffix}")
        with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
            source = write_float(detector, Path(scratch))
            settings = Quantization(**{k: getattr(self, k) for k in Quantization.model_fields})
            seen = spread(context.source, "train", self.pictures)
            found = quantize(source, path, settings, seen, track=context.track)
            shown = list(spread(context.source, "val", self.compared))
            report = agreement(source, path, shown)
            times = speed(source, path, shown[0][1])
        log.info("%s; %s", found.explain(), report.explain().partition("\n")[0])
        context.record("quantize", found)
        context.record("side_by_side", times)
        content = (path / SEAL if path.is_dir() else path).read_bytes()
        record = {
            "file": path.name,
            "format": "onnx" if self.runtime == "onnxruntime" else self.runtime,
            "precision": "int8",
            "bytes": bytes_of(path),
            "sha256": hashlib.sha256(content).hexdigest(),
            "parity": report.model_dump(mode="json"),
        }
        context.record("export", record)
        (log.warning if times.slower else log.info)("%s", times.explain())
        return detector
