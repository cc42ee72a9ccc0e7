"""What an exported file says about itself, inside of it or in a sidecar.

The rule: ONNX and TorchScript files carry their description inside. Every other format has it in
``FILE.spec.json`` beside the file, together with the SHA-256 of each file that belongs to the
model: runtimes written in C++ may end the whole process on a damaged file, so they get to see only
bytes that are those which were exported.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from slimface.core.boxes import at_most
from slimface.core.faces import Floats
from slimface.core.spec import ClassifierSpec, DetectorSpec, ModelSpec, Postprocess, read_spec
from slimface.deploy.pipeline import Answer, DecodedFaces, FoundFaces, RawFaces, Settings
from slimface.errors import CheckpointError, MissingError

SPEC_KEY = "slimface.spec"
"""Where an exported file keeps its spec as JSON."""

PROVENANCE_KEY = "slimface.provenance"
"""Where it says as JSON what it was made from, how, and what it costs."""

OUTPUTS_KEY = "slimface.outputs"
"""``raw``: logits, offsets (, landmarks) of each anchor; ``decoded``: scores, boxes (, landmarks)
of each anchor; ``faces``: those of what suppression left, and pictures; ``classes``: logits."""

CANVAS_KEY = "slimface.canvas"
"""Height and width as JSON, where the file takes one picture of one size only."""

FILES_KEY = "slimface.files"
"""In a sidecar: name -> SHA-256 of each file of the model."""

CLASS_NAMES = ("logits",)
RAW_NAMES = ("logits", "offsets")
DECODED_NAMES = ("scores", "boxes")
LANDMARKS_NAME = "landmarks"
PICTURES_NAME = "pictures"
"""Of each face, which picture of the batch shows it."""

MAX_MODEL_BYTES = 2**30
"""Larger model files are refused: no detector for devices is near it."""

MAX_SIDECAR_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Description:
    """How to feed and read an exported network."""

    spec: ModelSpec
    outputs: str
    """``raw``, ``decoded`` or ``faces``; ``classes`` for a classifier."""

    canvas: tuple[int, int] | None
    """The one height and width that the network takes; None: any batch of any size."""

    metadata: Mapping[str, str]
    """All that the file says, as it says it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in our order."""
        if self.outputs == "classes":
            return CLASS_NAMES
        points = (LANDMARKS_NAME,) if self.landmarks else ()
        if self.outputs == "faces":
            return (*DECODED_NAMES, PICTURES_NAME, *points)
        return (*(DECODED_NAMES if self.outputs == "decoded" else RAW_NAMES), *points)

    @property
    def landmarks(self) -> int:
        """Points a face."""
        return self.spec.landmarks if isinstance(self.spec, DetectorSpec) else 0

    @property
    def precision(self) -> str:
        """What the file was exported in: ``float32``, ``float16``, ``int8``."""
        story = json.loads(self.metadata.get(PROVENANCE_KEY, "{}"))
        return str(story.get("export", {}).get("precision", "float32"))

    def answer(self, tensors: Sequence[Floats]) -> Answer:
        """Return the network's outputs, in the order of ``names``, as what they mean.

        A classifier's are logits, an array ``(b, classes)``, which only its own pipeline reads.
        """
        if self.outputs == "classes":
            return cast(RawFaces, np.asarray(tensors[0], dtype=np.float32))
        if self.outputs == "faces":
            scores, boxes, pictures, *points = tensors
            return FoundFaces(np.asarray(pictures), scores, boxes, *points)
        first, second, *points = (np.asarray(tensor, dtype=np.float32) for tensor in tensors)
        landmarks = points[0] if points else None
        if self.outputs == "decoded":
            return DecodedFaces(first, second, landmarks)
        return RawFaces(first, second, landmarks)

    def shaped(self, tensors: Sequence[Any], batch: int) -> list[Floats]:
        """Give outputs the shape that a runtime without a batch, or of three axes, took away."""
        tails: list[tuple[int, ...]] = [(-1,), (-1, 4), (-1, self.landmarks, 2)]
        return [
            np.asarray(tensor, dtype=np.float32).reshape(batch, *tail)
            for tensor, tail in zip(tensors, tails, strict=False)
        ]


def describe(metadata: Mapping[str, str], path: Path) -> Description:
    """Read a description from the metadata of a file.

    Raises:
        CheckpointError: The file was not exported by slimface, or by a newer one.
    """
    if SPEC_KEY not in metadata:
        raise CheckpointError(
            f"{path}: its metadata has no '{SPEC_KEY}', so nothing says how to feed and read it.\n"
            "Export the model with: slimface export MODEL"
        )
    spec = read_spec(metadata[SPEC_KEY], where=str(path))
    outputs = metadata.get(OUTPUTS_KEY, "raw")
    if isinstance(spec, ClassifierSpec) != (outputs == "classes"):
        raise CheckpointError(
            f"{path}: its spec is for {spec.task}, and its outputs are '{outputs}'.\n"
            "The two do not belong together; export the model again."
        )
    if outputs not in ("raw", "decoded", "faces", "classes"):
        raise CheckpointError(
            f"{path}: '{OUTPUTS_KEY}' is '{outputs}'; this slimface knows 'raw', 'decoded', "
            "'faces' and 'classes'.\n"
            "Update slimface, or export the model again."
        )
    return Description(spec, outputs, _canvas(metadata.get(CANVAS_KEY), path), metadata)


def _canvas(text: str | None, path: Path) -> tuple[int, int] | None:
    try:
        sides = None if text is None else json.loads(text)
    except ValueError:
        sides = False
    if sides is None:
        return None
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or not all(type(side) is int and 0 < side < 2**16 for side in sides)
    ):
        raise CheckpointError(
            f"{path}: '{CANVAS_KEY}' is {text}; it must be a height and a width in pixels.\n"
            "Export the model again."
        )
    return sides[0], sides[1]


def limits(plan: Postprocess, settings: Settings = Settings()) -> dict[str, Any]:  # noqa: B008
    """Return what a graph that suppresses is told, by the names of its inputs.

    The operator keeps scores above its floor, we those at least as high; and both take for
    an overlap what float32 can hold.
    """
    floor = plan.score_floor if settings.score_floor is None else settings.score_floor
    return {
        "score_floor": np.nextafter(np.asarray([floor], np.float32), np.float32(-1)),
        "nms_overlap": np.asarray([at_most(settings.nms_overlap or plan.nms_overlap)]),
        "pre_nms": np.asarray([settings.pre_nms or plan.pre_nms], np.int64),
        "cap": np.asarray([settings.cap or plan.cap], np.int64),
    }


def sidecar_of(path: Path) -> Path:
    """Return where the description of a file is, if it is not inside."""
    return path.with_name(f"{path.name}.spec.json")


def read_sidecar(path: Path, content: bytes) -> tuple[Description, dict[str, bytes]]:
    """Return the description of a file, and the content of all files of its model by suffix.

    Args:
        path: The main file.
        content: Its bytes.

    Raises:
        MissingError: The sidecar, or a file that it names, is not there.
        CheckpointError: It is damaged, or a file is not the one that was exported.
    """
    sidecar = sidecar_of(path)
    try:
        with sidecar.open("rb") as file:
            text = file.read(MAX_SIDECAR_BYTES + 1)
    except FileNotFoundError:
        raise MissingError(
            f"{path}: {sidecar.name} is not beside it, so nothing says how to feed and read it.\n"
            "Copy it as well, or export the model with: slimface export MODEL"
        ) from None
    try:
        data = json.loads(text)
        digests = {str(name): str(digest) for name, digest in data[FILES_KEY].items()}
        metadata = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in data.items()
        }
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(
            f"{sidecar}: not a description of an exported model.\n"
            "It is damaged or cut off; copy or export the model again."
        ) from None
    files = {}
    # The main file may be renamed together with its sidecar; the others are found by their names.
    main = next(iter(digests), "")
    for name, digest in digests.items():
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(
                f"{sidecar}: '{name}' is a path, and only files beside the model are opened.\n"
                "Export the model again."
            )
        place = path if name == main else path.with_name(name)
        found = content if name == main else read_model(place)
        if hashlib.sha256(found).hexdigest() != digest:
            raise CheckpointError(
                f"{place}: not the file that was exported: it has {len(found):,} bytes and "
                f"another SHA-256 than {sidecar.name} says.\n"
                "It is damaged, cut off or of another model; copy or export it again."
            )
        files[place.suffix] = found
    return describe(metadata, path), files


def read_model(path: Path) -> bytes:
    """Return the bytes of a model file.

    Raises:
        MissingError: There is no such file.
        CheckpointError: It is empty or too large.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise MissingError(f"there is no model file {path}.\nCheck the path.") from None
    if path.is_dir() or not 0 < size <= MAX_MODEL_BYTES:
        what = "a folder" if path.is_dir() else f"{size:,} bytes"
        raise CheckpointError(
            f"{path}: {what}; a model has at least one byte and at most {MAX_MODEL_BYTES:,}.\n"
            "Copy or export it again."
        )
    return path.read_bytes()


def not_installed(path: Path, package: str, extra: str) -> MissingError:
    """Return the error for a runtime that is not installed."""
    return MissingError(
        f"{path} needs the package {package}, which is not installed.\n"
        f"Install it with: pip install '{extra}'"
    )


def unreadable(path: Path, runtime: str, error: object) -> CheckpointError:
    """Return the error for a file that a runtime does not take."""
    return CheckpointError(
        f"{path}: {runtime} cannot read it: {first_line(error)}\n"
        "The file is damaged, or this version of the runtime lacks an operation; "
        "update the runtime or export it again."
    )


def does_not_run(path: Path, shape: tuple[int, ...], error: object) -> CheckpointError:
    """Return the error for an input that a network does not take."""
    return CheckpointError(
        f"{path}: the network does not run on an input of shape {shape}: {first_line(error)}\n"
        "Was it exported for one fixed size? Export it with dynamic height and width."
    )


def first_line(error: object) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]
