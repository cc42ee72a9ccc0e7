"""Specs: a model as data, its pre- and postprocessing included."""

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from slimface.core.anchors import AnchorGrid, BoxCodec
from slimface.core.value import Value
from slimface.errors import CheckpointError

SPEC_VERSION = 1
"""Raised whenever older code could no longer read a newer spec correctly."""

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


class DetectorSpec(Value):
    """All that is needed to build, feed and read a detector, and nothing else.

    Widths are not here: they are read from the shapes of the stored tensors, so a pruned detector
    has the spec of its parent.
    """

    task: Literal["detection"] = "detection"
    version: int = SPEC_VERSION
    name: str
    """Name of the model for people: ``eresfd``."""

    architecture: Architecture
    preprocess: Preprocess
    anchors: AnchorGrid
    codec: BoxCodec = BoxCodec()
    postprocess: Postprocess = Postprocess()
    landmarks: int = Field(default=0, ge=0)
    """Points a face; 0 for detectors that find boxes only."""


def read_spec(text: str | bytes, *, where: str) -> DetectorSpec:
    """Read a spec from JSON.

    Raises:
        CheckpointError: It was written by a newer slimface.
        RecipeError: It breaks a rule.
    """
    try:
        version = json.loads(text).get("version", SPEC_VERSION)
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
    return DetectorSpec.parse(text, where=where)
