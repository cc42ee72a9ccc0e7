"""Specs: a model as data, its pre- and postprocessing included."""

import json
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, field_validator

from slimface.core.anchors import AnchorGrid, AnchorLevel, BoxCodec
from slimface.core.value import Value
from slimface.errors import CheckpointError

SPEC_VERSION = 1
"""Raised whenever older code could no longer read a newer spec correctly."""

CELL_PX = 12
"""Side of what the first net of a cascade looks at, in pixels of its pyramid."""

CASCADE_NETS = ("pnet", "rnet", "onet")
"""The nets of a cascade, in the order in which they see a face."""

Option = bool | int | float | str | tuple[int, ...]


class Architecture(Value):
    """Which module to build. The architecture's own file says what its options mean."""

    name: str
    options: Mapping[str, Option] = {}


class Preprocess(Value):
    """From 8-bit RGB to the network's input: ``(pixel - mean) * scale``."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Red, green, blue, in 0..255."""

    scale: float = Field(default=1.0, gt=0)
    colour: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels the network was trained with."""

    multiple_of: int = Field(default=1, gt=0)
    """Height and width are padded on the right and below to a multiple of this, with the mean."""


class Postprocess(Value):
    """What happens to decoded boxes unless the caller asks for something else."""

    score_floor: float = Field(default=0.5, ge=0, le=1)
    """Detections below this score are dropped."""

    nms_overlap: float = Field(default=0.3, gt=0, le=1)
    """Of two boxes that overlap by more than this, the lower scored goes."""

    pre_nms: int = Field(default=5000, gt=0)
    """At most this many boxes enter the suppression, best first."""

    cap: int = Field(default=750, gt=0)
    """At most this many faces a picture."""


class ModelSpec(Value):
    """What the specs of all tasks have in common.

    Widths are not here: they are read from the shapes of the stored tensors, so a pruned model has
    the spec of its parent.
    """

    task: str
    """What the model answers: ``detection``, ``cascade``, ``classification``."""

    version: int = SPEC_VERSION
    name: str
    """Name of the model for people: ``eresfd``."""

    architecture: Architecture
    preprocess: Preprocess


class DetectorSpec(ModelSpec):
    """All that is needed to build, feed and read a detector, and nothing else."""

    task: Literal["detection"] = "detection"
    anchors: AnchorGrid
    codec: BoxCodec = BoxCodec()
    postprocess: Postprocess = Postprocess()
    landmarks: int = Field(default=0, ge=0)
    """Points a face; 0 for detectors that find boxes only."""


class CascadeSpec(DetectorSpec):
    """All that is needed to build, feed and read a cascade: P-, R- and O-Net and their rules.

    The first net proposes boxes on a pyramid of the picture, the second refines them on crops of
    24x24 pixels, the third on crops of 48x48. What is asked of the last net, its score and the
    overlap of what stays (measured by the smaller box), stands in ``postprocess``.

    Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded
    Convolutional Networks", 2016, arXiv:1604.02878.
    """

    task: Literal["cascade"] = "cascade"  # type: ignore[assignment]  # one name, another value
    anchors: AnchorGrid = AnchorGrid(levels=(AnchorLevel(stride=2, sizes=(12,)),))
    """The cells of the first net on one picture of the pyramid."""

    min_face_px: float = Field(default=20, gt=0)
    """Smallest face looked for; it decides nearly all of the time."""

    factor: float = Field(default=0.709, gt=0, lt=1)
    """From one picture of the pyramid to the next."""

    resize: Literal["area", "linear"] = "area"
    """How the pyramid and the crops are sampled. ``area`` is the mean over whole pixels."""

    level_pixel: Literal[0, 1] = 1
    """Added to the scaled sides of the picture before they are truncated."""

    cells: Literal["floor", "round"] = "floor"
    """From a cell to its box: ``floor`` counts pixels from 1, ``round`` from 0."""

    crop: Literal["cut", "pad"] = "cut"
    """Crops end at the border of the picture, or go on in black. ``cut`` truncates and counts
    pixels from 1, ``pad`` rounds and counts from 0."""

    inclusive: bool = False
    """Whether the second corner of a box is its last pixel, in squares and overlaps."""

    offset_pixels: tuple[Literal[0, 1], Literal[0, 1], Literal[0, 1]] = (0, 1, 1)
    """For each net: offsets are fractions of a box's sides plus this."""

    proposal_floor: float = Field(default=0.6, ge=0, le=1)
    """Lowest score of the first net."""

    level_overlap: float = Field(default=0.5, gt=0, le=1)
    """Of two boxes in one picture of the pyramid that overlap by more, the lower scored goes."""

    proposal_overlap: float = Field(default=0.7, gt=0, le=1)
    """The same among all pictures of the pyramid."""

    refine_floor: float = Field(default=0.7, ge=0, le=1)
    """Lowest score of the second net."""

    refine_overlap: float = Field(default=0.7, gt=0, le=1)
    """The same after the second net."""

    square_last: bool = False
    """Whether the faces found are made square."""

    proposals: int = Field(default=20_000, gt=0)
    """At most this many boxes, best first, go on at each step: this bounds time and memory."""

    def of_net(self, net: str) -> "CascadeSpec":
        """Return the spec of one of the nets: these rules, which it was trained for, and its name.

        Only the last has landmarks.
        """
        architecture = self.architecture.model_copy(
            update={"name": f"{self.architecture.name}.{net}"}
        )
        points = self.landmarks if net == CASCADE_NETS[-1] else 0
        return self.model_copy(
            update={
                "name": f"{self.name}.{net}",
                "architecture": architecture,
                "landmarks": points,
            }
        )

    def cells_along(self, side: int) -> int:
        """Return how many cells the first net has along a side of so many pixels, from 12 on."""
        rounded_up = bool(self.architecture.options.get("ceil", True))
        return (side - CELL_PX + rounded_up) // 2 + 1

    def levels(self, height: int, width: int) -> Iterator[tuple[float, int, int]]:
        """Yield scale, height and width of each picture of the pyramid, largest first."""
        scale = CELL_PX / self.min_face_px
        while True:
            rows, columns = (int(side * scale + self.level_pixel) for side in (height, width))
            if min(rows, columns) <= CELL_PX:
                return
            yield scale, rows, columns
            scale *= self.factor


class WholePicture(Preprocess):
    """From a picture of any size to the one size a classifier looks at.

    After resizing: ``(pixel - mean) * scale / deviation``.
    """

    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Red, green, blue: what the shifted and scaled values are divided by."""

    height_px: int = Field(default=224, gt=0)
    width_px: int = Field(default=224, gt=0)
    fit: Literal["stretch", "crop"] = "stretch"
    """``stretch`` resizes both sides and ignores the aspect; ``crop`` keeps it, and cuts out the
    middle."""

    crop: float = Field(default=0.875, gt=0, le=1)
    """For ``crop``: how much of the shorter side the middle takes."""

    @field_validator("deviation")
    @classmethod
    def _nothing_is_divided_by_zero(
        cls, value: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        if min(value) <= 0:
            raise ValueError("a deviation is above 0")
        return value


class ClassifierSpec(ModelSpec):
    """All that is needed to build, feed and read an image classifier, and nothing else."""

    task: Literal["classification"] = "classification"
    preprocess: WholePicture = WholePicture()
    classes: tuple[str, ...] = Field(min_length=2)
    """Their names, in the order of the outputs."""

    @field_validator("classes")
    @classmethod
    def _names_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            twice = next(name for name in value if value.count(name) > 1)
            raise ValueError(f"two classes are called {twice!r}")
        return value


_SPECS: Mapping[str, type[ModelSpec]] = {
    "detection": DetectorSpec,
    "cascade": CascadeSpec,
    "classification": ClassifierSpec,
}


def read_spec(text: str | bytes, *, where: str) -> ModelSpec:
    """Read a spec of any task from JSON.

    Raises:
        CheckpointError: It was written by a newer slimface.
        RecipeError: It breaks a rule.
    """
    try:
        content = json.loads(text)
        version = content.get("version", SPEC_VERSION)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: the spec is not a JSON object ({error}).\n"
            "The file was not written by slimface or is damaged; export or save it again."
        ) from None
    if not isinstance(version, int) or version > SPEC_VERSION:
        raise CheckpointError(
            f"{where}: its spec has version {version}; this slimface reads up to {SPEC_VERSION}.\n"
            "Update slimface (pip install -U slimface), or write the file again with this version."
        )
    kind = _SPECS.get(str(content.get("task", "detection")), DetectorSpec)
    return kind.parse(text, where=where)
