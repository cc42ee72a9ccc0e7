"""Detector: what every detector of the zoo has in common as a torch module."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slimface.core.spec import DetectorSpec


class RawTensors(NamedTuple):
    """What a detector says about each anchor, before decoding."""

    logits: Tensor
    """Shape ``(b, anchors)``: log-odds of a face; the score is their sigmoid."""

    offsets: Tensor
    """Shape ``(b, anchors, 4)``, in the units of the spec's codec."""

    landmarks: Tensor | None = None
    """Shape ``(b, anchors, k, 2)``, in the units of the spec's codec."""


class Detector(nn.Module):
    """A detector: normalised pictures in, raw predictions of every anchor out.

    A subclass is one paper. It sets ``head_names``, and implements ``maps`` (the network) and
    ``read`` (what the maps mean). Anchors run level by level, row by row, column by column.
    """

    head_names: tuple[str, ...] = ()
    """Modules whose output channels have a meaning each; their outputs are never cut."""

    constant_names: tuple[str, ...] = ()
    """Parameters that belong to no layer and have no entry for each channel; they are never cut."""

    trace_size: tuple[int, int] = (64, 64)
    """Height and width of a small input that reaches every layer."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec

    @classmethod
    def translate(cls, tensors: Mapping[str, Tensor], *, where: str) -> Mapping[str, Tensor]:
        """Return a published state dict by the names, and in the order of columns, of the module.

        Raises:
            CheckpointError: ``tensors`` are not those of this architecture.
        """
        return tensors

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the prediction convolutions, as they are.

        This is what channel tracing follows: no flattening and no mixing of channels after it.
        """
        raise NotImplementedError

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """Turn ``maps`` into predictions for each anchor."""
        raise NotImplementedError

    def prepare(self, pictures: Tensor) -> Tensor:
        """Normalise 8-bit RGB pictures ``(b, 3, height, width)`` as the spec says."""
        rule = self.spec.preprocess
        images = pictures if rule.colour == "rgb" else pictures.flip(1)
        mean = rule.mean if rule.colour == "rgb" else rule.mean[::-1]
        shift = torch.tensor(mean, dtype=torch.float32, device=pictures.device)
        return (images.float() - shift.view(1, 3, 1, 1)) * rule.scale

    def forward(self, images: Tensor) -> RawTensors:
        """Predict from normalised pictures ``(b, 3, height, width)`` of any height and width."""
        return self.read(self.maps(images))
