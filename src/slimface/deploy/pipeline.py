"""From an 8-bit picture of any size to its faces, by the spec alone."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from slimface.core.boxes import best_first, suppress
from slimface.core.faces import Faces, Floats
from slimface.core.spec import DetectorSpec
from slimface.deploy.media import Picture as Picture
from slimface.deploy.media import read_picture
from slimface.deploy.preprocess import Normaliser, check_picture
from slimface.errors import CheckpointError, UsageError

Source = Picture | str | Path
"""A picture, or the path of one."""


@dataclass(frozen=True, slots=True)
class RawFaces:
    """What a network says about each anchor of a batch, before decoding."""

    logits: Floats
    """Shape ``(b, anchors)``: log-odds of a face; the score is their sigmoid."""

    offsets: Floats
    """Shape ``(b, anchors, 4)``, in the units of the spec's codec."""

    landmarks: Floats | None = None
    """Shape ``(b, anchors, k, 2)``, in the units of the spec's codec."""


@dataclass(frozen=True, slots=True)
class DecodedFaces:
    """The same from a network that decodes within its graph."""

    scores: Floats
    """Shape ``(b, anchors)``, in [0, 1]."""

    boxes: Floats
    """Shape ``(b, anchors, 4)``: corners in pixels of the network's input."""

    landmarks: Floats | None = None
    """Shape ``(b, anchors, k, 2)``: x, y in pixels of the network's input."""


@dataclass(frozen=True, slots=True)
class FoundFaces:
    """The same from a network that suppresses within its graph, too: ``m`` faces of all pictures.

    Its attribute ``suppresses`` is true, and it is called with the ``Settings`` as well.
    """

    pictures: npt.NDArray[np.int64]
    """Shape ``(m,)``: which picture of the batch shows each; those of a picture best first."""

    scores: Floats
    """Shape ``(m,)``, in [0, 1]."""

    boxes: Floats
    """Shape ``(m, 4)``: corners in pixels of the network's input."""

    landmarks: Floats | None = None
    """Shape ``(m, k, 2)``: x, y in pixels of the network's input."""


Answer = RawFaces | DecodedFaces | FoundFaces
"""What a network says, whichever part of the postprocessing it does itself."""


class Network(Protocol):
    """A network in any runtime: normalised ``(b, 3, height, width)`` float32 in."""

    def __call__(self, images: Floats) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How to detect. None stands for what the model's spec says."""

    scale: float | None = None
    """Factor of both sides before the network; None: 1, or what ``longest_px`` asks for."""

    longest_px: int | None = None
    """Resize so that the longer side has this many pixels, keeping the aspect."""

    score_floor: float | None = None
    nms_overlap: float | None = None
    pre_nms: int | None = None
    cap: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.longest_px is not None:
            raise UsageError("scale and longest_px exclude each other.\nGive one of them.")
        for name, low, high in (
            ("scale", 0, math.inf), ("longest_px", 0, math.inf), ("nms_overlap", 0, 1),
            ("pre_nms", 0, math.inf), ("cap", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low < value <= high:
                limit = f"above {low}" + (f" and at most {high}" if high == 1 else "")
                raise UsageError(f"{name} is {value}; it must be {limit}.\nCorrect it.")
        if self.score_floor is not None and not 0 <= self.score_floor <= 1:
            raise UsageError(
                f"score_floor is {self.score_floor}; scores lie between 0 and 1.\nCorrect it."
            )

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width to which a picture of this size is resized."""
        scale = self.scale or 1.0
        if self.longest_px is not None:
            scale = self.longest_px / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the milliseconds of one picture went."""

    read_ms: float
    """From the file to pixels; 0 if the picture was there already."""

    resize_ms: float
    """Resizing and normalising."""

    network_ms: float

    decode_ms: float
    """Thresholding, decoding, suppression."""

    @property
    def total_ms(self) -> float:
        return self.read_ms + self.resize_ms + self.network_ms + self.decode_ms

    def as_row(self) -> dict[str, float]:
        """Return the milliseconds by name, rounded for people and JSON."""
        parts = {
            "read": self.read_ms,
            "resize": self.resize_ms,
            "network": self.network_ms,
            "decode": self.decode_ms,
            "total": self.total_ms,
        }
        return {name: round(value, 3) for name, value in parts.items()}


class Predictor(Protocol):
    """Anything that finds faces: a torch module in training or a file on a phone alike."""

    @property
    def spec(self) -> DetectorSpec: ...

    def detect(self, picture: Picture, settings: Settings = ...) -> Faces:
        """Return the faces of one picture, best first, in pixels of that picture."""
        ...


class Pipeline:
    """A network with the pre- and postprocessing of its spec: a Predictor.

    May be called from several threads if its network may.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        network: Network,
        *,
        name: str = "",
        runtime: str = "python",
        identity: Callable[[], str] | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> None:
        """Join a spec and a network.

        Args:
            spec: How pictures are fed to the network and its answers read.
            network: Called with normalised pictures.
            name: For people; the spec's name if empty.
            runtime: What runs the network, for tables.
            identity: Gives the SHA-256 of all that decides what is found; see ``fingerprint``.
            canvas: The one height and width that the network takes, if it takes no other.
        """
        self.canvas = canvas
        """Pictures lie in its upper left corner, made smaller if they do not fit, never larger."""

        self.spec = spec
        self.network = network
        self.name = name or spec.name
        self.runtime = runtime
        self._identity = identity
        self._normalise = Normaliser(spec.preprocess)

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes whenever the model may find something else.

        Raises:
            UsageError: The network has no identity: it was given as a bare function.
        """
        if self._identity is None:
            raise UsageError(
                "this pipeline was made around a bare network and has no fingerprint.\n"
                "Load the model from a file, or give Pipeline(identity=...)."
            )
        return self._identity()

    def detect(self, picture: Source, settings: Settings = Settings()) -> Faces:
        """Return the faces of one picture (or of its file), best first, in its pixels.

        Boxes are not clipped: a face at the border may reach out of the picture.

        Raises:
            UsageError: The picture is no 8-bit array of shape ``(height, width, 3)``.
            DataError: The file is no readable picture.
            CheckpointError: The network's answers do not fit the spec, or are not numbers.
        """
        return self.detect_timed(picture, settings)[0]

    def detect_timed(
        self,
        picture: Source,
        settings: Settings = Settings(),
    ) -> tuple[Faces, Timing]:
        """As ``detect``, and where the milliseconds went."""
        clock = time.perf_counter
        start = clock()
        pixels = read_picture(picture) if isinstance(picture, str | Path) else picture
        check_picture(pixels)
        read = clock()
        images = self.prepare([pixels], settings)
        resized = clock()
        raw = self._ask(images, settings)
        answered = clock()
        faces = self._read(raw, 0, images.shape, self._ratio(pixels, settings), settings)
        done = clock()
        marks = (start, read, resized, answered, done)
        return faces, Timing(*(1e3 * (b - a) for a, b in pairwise(marks)))

    def detect_batch(
        self,
        pictures: Sequence[Picture],
        settings: Settings = Settings(),
    ) -> list[Faces]:
        """Return the faces of each picture; one call of the network for all of them.

        Raises:
            UsageError: The pictures are not all of the same size.
        """
        for picture in pictures:
            check_picture(picture)
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise UsageError(
                f"a batch holds pictures of {len(shapes)} sizes; the network needs one.\n"
                "Group them by size, or call detect for each."
            )
        if not pictures:
            return []
        images = self.prepare(pictures, settings)
        raw = self._ask(images, settings)
        ratio = self._ratio(pictures[0], settings)
        return [
            self._read(raw, item, images.shape, ratio, settings) for item in range(len(pictures))
        ]

    def prepare(
        self,
        pictures: Sequence[Picture],
        settings: Settings = Settings(),
    ) -> Floats:
        """Return the network's input for pictures of one size: resized, normalised, padded.

        The array is used again: it is valid until the next call in the same thread.
        """
        height, width = self._sized(pictures[0], settings)
        return self._normalise(pictures, height, width, canvas=self.canvas)

    def _sized(self, picture: Picture, settings: Settings) -> tuple[int, int]:
        """Height and width to which a picture is resized."""
        rows, columns = settings.network_size(*picture.shape[:2])
        if self.canvas is None:
            return rows, columns
        fit = min(self.canvas[0] / rows, self.canvas[1] / columns, 1.0)
        return max(1, round(rows * fit)), max(1, round(columns * fit))

    def _ratio(self, picture: Picture, settings: Settings) -> Floats:
        """Pixels of the network's input for one of the picture: x, y, x, y; rounding parts them."""
        height, width = picture.shape[:2]
        rows, columns = self._sized(picture, settings)
        return np.asarray([columns / width, rows / height] * 2, dtype=np.float32)

    def _ask(self, images: Floats, settings: Settings) -> Answer:
        if getattr(self.network, "suppresses", False):
            network: Any = self.network
            found: FoundFaces = network(images, settings)
            return found
        return self.network(images)

    def _read(
        self,
        raw: Answer,
        item: int,
        shape: tuple[int, ...],
        ratio: Floats,
        settings: Settings,
    ) -> Faces:
        """Turn the network's answer for one picture of a batch into faces."""
        if isinstance(raw, FoundFaces):
            return self._kept(raw, raw.pictures == item, ratio)
        plan = self.spec.postprocess
        floor = _first(settings.score_floor, plan.score_floor)
        decoded = isinstance(raw, DecodedFaces)
        values = raw.scores[item] if isinstance(raw, DecodedFaces) else raw.logits[item]
        _check_values(values, self.spec.anchors.count(*shape[2:]), self.name)
        # The sigmoid is increasing: comparing logits finds the same survivors without computing it.
        survivors = np.flatnonzero(values >= (floor if decoded else logit(floor)))
        values = values[survivors]
        order = best_first(values, limit=_first(settings.pre_nms, plan.pre_nms))
        survivors, values = survivors[order], values[order]
        boxes, landmarks = self._decode(raw, item, survivors, shape)
        kept = suppress(
            boxes,
            values,
            overlap=_first(settings.nms_overlap, plan.nms_overlap),
            cap=_first(settings.cap, plan.cap),
            is_sorted=True,
        )
        scores = values if decoded else sigmoid(values)
        return self._kept(DecodedFaces(scores, boxes, landmarks), kept, ratio)

    def _kept(
        self, found: DecodedFaces | FoundFaces, kept: npt.NDArray[Any], ratio: Floats
    ) -> Faces:
        """Return those that are kept, in pixels of the picture."""
        boxes = found.boxes[kept] / ratio
        if not np.isfinite(boxes).all():
            raise _not_numbers(self.name)
        points = None if found.landmarks is None else found.landmarks[kept] / ratio[:2]
        return Faces(boxes, found.scores[kept], points)

    def _decode(
        self,
        raw: RawFaces | DecodedFaces,
        item: int,
        survivors: npt.NDArray[np.intp],
        shape: tuple[int, ...],
    ) -> tuple[Floats, Floats | None]:
        points = None if raw.landmarks is None else raw.landmarks[item, survivors]
        if isinstance(raw, DecodedFaces):
            return raw.boxes[item, survivors], points
        anchors = self.spec.anchors.anchors(*shape[2:])[survivors]
        # What overflows is no box; the caller refuses it.
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = self.spec.codec.decode(raw.offsets[item, survivors], anchors)
        if points is not None:
            points = self.spec.codec.decode_points(points, anchors)
        return boxes, points


def sigmoid(logits: Floats) -> Floats:
    """Return the scores of logits of any size."""
    # Below -87 the exponential of a float32 overflows, and the score is 0 either way.
    odds: Floats = np.exp(-np.maximum(logits, np.float32(-87)))
    return np.float32(1) / (np.float32(1) + odds)


def logit(score: float) -> float:
    """Return the log-odds of a score; infinite at 0 and 1."""
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score))


def _first(asked: float | None, default: float) -> Any:
    return default if asked is None else asked


def _check_values(values: Floats, anchors: int, name: str) -> None:
    if values.shape != (anchors,):
        raise CheckpointError(
            f"{name}: the network answers for {len(values)} anchors, its spec has {anchors}.\n"
            "The file and its spec do not belong together; export or save the model again."
        )
    # A sum is one cheap pass, and not finite as soon as one of its terms is not.
    if not np.isfinite(values.sum()) and np.isnan(values).any():
        raise _not_numbers(name)


def _not_numbers(name: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: the network answers with values that are infinite or no numbers (NaN).\n"
        "Its weights are damaged or its training diverged; use an earlier checkpoint."
    )
