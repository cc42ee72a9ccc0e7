"""Detector: what every detector of the zoo has in common as a torch module."""

from typing import NamedTuple

from torch import Tensor

from slimface.core.spec import DetectorSpec
from slimface.model.network import Network


class RawTensors(NamedTuple):
    """What a detector says about each anchor, before decoding."""

    logits: Tensor
    """Shape ``(b, anchors)``: log-odds of a face; the score is their sigmoid."""

    offsets: Tensor
    """Shape ``(b, anchors, 4)``, in the units of the spec's codec."""

    landmarks: Tensor | None = None
    """Shape ``(b, anchors, k, 2)``, in the units of the spec's codec."""


class Detector(Network):
    """A detector: normalised pictures in, raw predictions of every anchor out.

    A subclass is one paper. It sets ``head_names``, and implements ``maps`` (the network) and
    ``read`` (what the maps mean). Anchors run level by level, row by row, column by column.
    """

    spec: DetectorSpec

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """Turn ``maps`` into predictions for each anchor."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> RawTensors:
        """Predict from normalised pictures ``(b, 3, height, width)`` of any height and width."""
        return self.read(self.maps(images))
