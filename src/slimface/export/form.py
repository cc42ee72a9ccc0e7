"""Form: what every format is asked, and what every file says about itself."""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

import slimface
from slimface.core.value import Value
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.runtimes import (
    CANVAS_KEY,
    FILES_KEY,
    OUTPUTS_KEY,
    PROVENANCE_KEY,
    SPEC_KEY,
    sidecar_of,
)
from slimface.errors import MissingError
from slimface.export.graph import Graph, padded
from slimface.files import write_text
from slimface.loading import load
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.precision import fold_for_half
from slimface.model.profile import profile


class Form(Value):
    """How a detector leaves: the options that all formats share."""

    kind: str
    precision: str = "float32"
    decode: bool = False
    """Put scores and boxes in input pixels out, instead of logits and offsets."""

    dynamic: bool = True
    """Accept any batch, height and width; otherwise one picture, ``height`` x ``width``."""

    height: int = Field(default=480, gt=0)
    width: int = Field(default=640, gt=0)

    suffix: ClassVar[str]
    extra: ClassVar[str] = "export"
    """What to install: ``pip install 'slimface[extra]'``."""

    is_folder: ClassVar[bool] = False
    """Whether the file is a folder."""

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``path`` and what belongs to it; the caller lets nothing half-written stay.

        Raises:
            MissingError: The library that writes the format is not installed.
            ParityError: The file does not compute what the detector does, or the format cannot
                express one of its operations; the message names it.
            CheckpointError: The numbers of the detector do not fit into the precision.
        """
        raise NotImplementedError

    def open(self, path: Path) -> Pipeline:
        """Return what was written, ready to be compared."""
        return load(path)

    def canvas(self, detector: Detector) -> tuple[int, int] | None:
        """The one height and width that the file takes; None: any."""
        if self.dynamic:
            return None
        return self.sides(detector)

    def sides(self, detector: Detector) -> tuple[int, int]:
        """Height and width of the input to trace with."""
        return padded(detector.spec, self.height, self.width)

    def graph(self, detector: Detector) -> Graph:
        """Return what the file is to compute, in float32, on the processor.

        Raises:
            CheckpointError: The detector does not fit into the precision that is asked for.
        """
        # A detector that has run may hold its weights in channels-last order; XNNPACK refuses that.
        own = copy.deepcopy(detector).cpu().eval().to(memory_format=torch.contiguous_format)
        if self.precision == "float16":
            own = fold_for_half(own)
        return Graph(own, decode=self.decode, size=self.canvas(detector)).eval()

    def example(self, detector: Detector) -> torch.Tensor:
        """Return an input to trace with."""
        return torch.zeros(1, 3, *self.sides(detector))

    def metadata(
        self, detector: Detector, provenance: Mapping[str, Any] | None, **versions: str
    ) -> dict[str, str]:
        """Return what the file says about itself.

        Args:
            detector: As it was before it was prepared for the file.
            provenance: Where it comes from.
            versions: Of the libraries that wrote the file.
        """
        cost = profile(detector, self.height, self.width)
        story = {
            **(provenance or {}),
            "slimface": slimface.__version__,
            "torch": torch.__version__,
            **versions,
            "export": self.model_dump(mode="json"),
            "cost": {
                "parameters": cost.parameters,
                "macs": cost.macs,
                "height": self.height,
                "width": self.width,
            },
        }
        canvas = self.canvas(detector)
        return {
            SPEC_KEY: detector.spec.model_dump_json(),
            OUTPUTS_KEY: self._outputs(detector),
            PROVENANCE_KEY: json.dumps(story, sort_keys=True),
            **({} if canvas is None else {CANVAS_KEY: json.dumps(canvas)}),
        }

    def _outputs(self, detector: Any) -> str:
        if isinstance(detector, Classifier):
            return "classes"
        return "decoded" if self.decode else "raw"

    def missing(self, error: ImportError) -> MissingError:
        """Return the error that says what to install."""
        return MissingError(
            f"Exporting to {self.kind} needs the package {error.name}, which is not installed.\n"
            f"Install it with: pip install 'slimface[{self.extra}]'"
        )


class Fixed(Form):
    """A format whose files take one picture of one size.

    Where there are several levels, the size is rounded up to whole cells of the coarsest, so that
    maps double exactly on their way up: LiteRT takes another neighbour than torch where 8 rows
    become 15, which moves logits of EResFD by 0.2.
    """

    dynamic: Literal[False] = False

    def sides(self, detector: Detector) -> tuple[int, int]:
        """As ``Form.sides``, rounded up."""
        height, width = super().sides(detector)
        strides = [level.stride for level in detector.spec.anchors.levels]
        coarsest = max(strides) if len(strides) > 1 else 1
        return -(-height // coarsest) * coarsest, -(-width // coarsest) * coarsest


def write_sidecar(path: Path, metadata: Mapping[str, str], *others: Path) -> None:
    """Write the description of a file that cannot hold it, with the digests of all its files."""
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, *others)}
    said = {key: _plain(value) for key, value in metadata.items()}
    write_text(sidecar_of(path), json.dumps({**said, FILES_KEY: digests}, indent=1) + "\n")


def _plain(value: str) -> Any:
    return json.loads(value) if value[:1] in "[{" else value
