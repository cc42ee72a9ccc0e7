"""What an exported file computes, as a module that any exporter can trace."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimface.core.spec import ModelSpec
from slimface.deploy.runtimes import CLASS_NAMES, DECODED_NAMES, LANDMARKS_NAME, RAW_NAMES
from slimface.errors import ParityError
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.network import Network


class Graph(nn.Module):
    """A model that answers with a plain tuple, in the order of ``output_names``."""

    def __init__(
        self,
        detector: Detector | Classifier,
        *,
        decode: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Wrap a detector or a classifier.

        Args:
            detector: Used as it is, without a copy.
            decode: Answer with scores and boxes in pixels of the input.
            size: The one height and width of the input: anchors become constants.
        """
        super().__init__()
        self.detector: Any = detector
        self.decode = decode
        if isinstance(detector, Classifier):
            self.output_names: tuple[str, ...] = CLASS_NAMES
            self.register_buffer("anchors", None, persistent=False)
            return
        points = (LANDMARKS_NAME,) if detector.spec.landmarks else ()
        self.output_names = (*(DECODED_NAMES if decode else RAW_NAMES), *points)
        anchors = None
        if decode and size is not None:
            anchors = detector.spec.anchors.anchors_in(torch, *size)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw: Any = self.detector(images)
        if isinstance(raw, Tensor):
            return (raw,)
        if not self.decode:
            return tuple(tensor for tensor in raw if tensor is not None)
        spec = self.detector.spec
        anchors: Any = self.anchors
        if anchors is None:
            anchors = spec.anchors.anchors_in(torch, images.shape[2], images.shape[3])
        decoded = [raw.logits.sigmoid(), spec.codec.decode(raw.offsets, anchors)]
        if raw.landmarks is not None:
            decoded.append(spec.codec.decode_points(raw.landmarks, anchors))
        return tuple(decoded)


def padded(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """Return the size that the pipeline feeds the network with for a picture of this size."""
    multiple = spec.preprocess.multiple_of
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def noise(detector: Network, batch: int, height: int, width: int) -> Tensor:
    """Return normalised pictures of noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return detector.prepare(255 * torch.rand(batch, 3, height, width, generator=generator))


def check_tensors(
    name: str, ours: "np.ndarray[Any, Any]", theirs: "np.ndarray[Any, Any]", *, where: str,
    tolerance: float = 1e-3,
) -> None:  # fmt: skip
    """Raise ParityError unless both are the same up to rounding."""
    if ours.shape != theirs.shape:
        raise ParityError(
            f"At {where}, {name} has shape {theirs.shape} in the file and {ours.shape} in torch.\n"
            "An operation of the model fixes its size; --fixed exports one size only."
        )
    finite = np.isfinite(ours)
    scale = max(1.0, float(np.abs(ours[finite]).max(initial=0)))
    gap = float(np.abs(ours[finite] - theirs[finite]).max(initial=0))
    # Untrained detectors can decode to infinite boxes; those must be the same ones.
    same = np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
    if not (same and gap <= tolerance * scale):
        raise ParityError(
            f"At {where}, {name} differ from torch by up to {gap:.1e}, of {scale:.1e}.\n"
            "Try another --opset or exporter, and report the model's operations as a bug."
        )
