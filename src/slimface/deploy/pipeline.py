"""From an 8-bit picture of any size to its faces, by the spec alone."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces, Floats
from slimface.core.spec import DetectorSpec

Picture = npt.NDArray[np.uint8]
"""Height x width x 3, red green blue."""


@dataclass(frozen=True, slots=True)
class RawFaces:
    """What a network says about each anchor of a batch, before decoding."""

    logits: Floats
    """Shape ``(b, anchors)``: log-odds of a face; the score is their sigmoid."""

    offsets: Floats
    """Shape ``(b, anchors, 4)``, in the units of the spec's codec."""

    landmarks: Floats | None = None
    """Shape ``(b, anchors, k, 2)``, in the units of the spec's codec."""


class Network(Protocol):
    """A network in any runtime: normalised ``(b, 3, height, width)`` float32 in, RawFaces out."""

    def __call__(self, images: Floats) -> RawFaces: ...


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


class Predictor(Protocol):
    """Anything that finds faces: a torch module in training or a file on a phone alike."""

    @property
    def spec(self) -> DetectorSpec: ...

    def detect(self, picture: Picture, settings: Settings = ...) -> Faces:
        """Return the faces of one picture, best first, in pixels of that picture."""
        ...
