"""Bundle: what ``spec.json`` of a bundle says, enough to write a detector in any language.

Its JSON schema is published as ``docs/reference/spec.schema.json``.
"""

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from slimface.core.spec import CascadeSpec, DetectorSpec
from slimface.core.value import Value
from slimface.errors import CheckpointError

BUNDLE_VERSION = 1
"""Raised whenever older code could no longer read a newer bundle correctly."""

Precision = Literal["float32", "float16", "int8"]


def _inside(path: str) -> str:
    place = PurePosixPath(path)
    if not place.parts or place.is_absolute() or ".." in place.parts or "\\" in path:
        raise ValueError(f"{path!r} leads out of the bundle")
    return path


Place = Annotated[str, AfterValidator(_inside)]
"""A path in the bundle, with slashes."""


class Rules(Value):
    """What no option changes, so that a reader can refuse a bundle that is made otherwise."""

    layout: Literal["nchw float32"] = "nchw float32"
    """The input: batch, red-green-blue (or as ``preprocess.colour`` says), rows, columns."""

    rounding: Literal["half to even"] = "half to even"
    """From scaled sides to whole pixels, and from weights to whole 2048ths."""

    resize: Literal["bilinear 1/2048"] = "bilinear 1/2048"
    """To the bits of OpenCV's INTER_LINEAR on bytes: pixel centres at one half, no antialiasing,
    both weights rounded to 2048ths; columns first, their sums shifted right by 4, then the product
    of each row by 16, and the sum of both, plus 2, by 2. Beyond the border columns are taken whole,
    rows keep their weights. Halving both sides takes means, whose halves go up. A picture that has
    the size already is left alone. A cascade samples as its own ``resize`` says."""

    padding: Literal["below and right with 0"] = "below and right with 0"
    """After normalising, up to ``preprocess.multiple_of``, or to the file's ``canvas``; a picture
    larger than a canvas is made smaller until it fits."""

    anchors: Literal["level, row, column, size"] = "level, row, column, size"
    """Their order; each has centre x, centre y, width, height."""

    decoding: Literal["ssd"] = "ssd"
    """centre = anchor centre + offset * centre_variance * anchor side; side = anchor side *
    exp(offset * size_variance); landmarks as centres."""

    activation: Literal["sigmoid"] = "sigmoid"
    """From logits to scores."""

    suppression: Literal["greedy"] = "greedy"
    """Best first; equal scores in the order of the anchors. Of two boxes whose intersection over
    union is above ``nms_overlap``, the lower scored goes."""


class ModelFile(Value):
    """One of the files that hold the network."""

    path: Place
    """Of a cascade a folder, in which each net is called after itself: ``pnet.onnx``."""

    format: str
    """Name of the format: ``onnx``."""

    runtime: str
    """What runs it: ``onnxruntime``."""

    precision: Precision
    outputs: Literal["raw", "decoded"] = "raw"
    """``raw``: logits ``(b, anchors)``, offsets ``(b, anchors, 4)``. ``decoded``: scores and boxes,
    corners in pixels of the input. Either with landmarks ``(b, anchors, k, 2)``."""

    canvas: tuple[int, int] | None = None
    """Height and width of the only input the file takes; null: any."""

    golden: Place = "golden"
    """Folder with a picture, the tensors that go in and come out, and the faces."""


class Bundle(Value):
    """All that a program must know to run a detector, in any language."""

    version: int = Field(default=BUNDLE_VERSION, gt=0)
    name: str
    spec: DetectorSpec | CascadeSpec = Field(discriminator="task")
    rules: Rules = Rules()
    files: tuple[ModelFile, ...] = Field(min_length=1)
    """The first is the one that the runners open."""

    licence: str = ""
    """Of the weights; empty where nobody has said it."""


def read_bundle(text: str | bytes, *, where: str) -> Bundle:
    """Read ``spec.json`` of a bundle.

    Raises:
        CheckpointError: It was written by a newer slimface, or is no bundle's.
        RecipeError: It breaks a rule.
    """
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError):
        version = None
    if type(version) is not int:
        raise CheckpointError(
            f"{where}: not the spec of a bundle: it is no JSON object with a version.\n"
            "Copy the bundle again, or make it with: slimface export MODEL --format bundle"
        )
    if version > BUNDLE_VERSION:
        raise CheckpointError(
            f"{where}: the bundle has version {version}; this slimface reads up to "
            f"{BUNDLE_VERSION}.\nUpdate slimface (pip install -U slimface), or make it again."
        )
    return Bundle.parse(text, where=where)


def bundle_schema() -> dict[str, Any]:
    """Return the JSON schema of ``spec.json``."""
    schema = Bundle.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
