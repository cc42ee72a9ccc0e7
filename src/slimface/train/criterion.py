"""Criteria: what training makes small."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from slimface.core.anchors import BoxCodec
from slimface.core.faces import Faces
from slimface.core.value import Value
from slimface.data.batches import Batch
from slimface.model.detector import Detector, RawTensors
from slimface.train.assign import Matching, ScaleCompensated


class Loss(NamedTuple):
    """A loss and what it is made of."""

    total: Tensor
    """Scalar with a gradient."""

    parts: dict[str, Tensor]
    """Detached scalars by name, for the record: ``class``, ``box``, …"""


class Criterion(Protocol):
    """What ``epochs`` minimises. A teacher or a regulariser is a criterion around another one.

    It knows the kind of batch it is for: pictures with faces, crops with a label, classes.
    """

    def __call__(self, detector: Any, raw: Any, batch: Any) -> Loss: ...


class Targets(NamedTuple):
    """What each anchor of a batch should have said."""

    positive: Tensor
    """Shape ``(b, anchors)``, bool."""

    offsets: Tensor
    """Shape ``(positives, 4)``, in the order of ``positive.nonzero()``."""

    landmarks: Tensor | None
    """Shape ``(positives, k, 2)``, NaN where a face has none; None if no face of the batch has."""


class MultiBox(Value):
    """Cross entropy on matched anchors and the hardest background, smooth L1 on offsets.

    All terms are summed and divided by the number of matched anchors of the batch.

    Source: Liu et al., "SSD", ECCV 2016, arXiv:1512.02325, equations 1 to 3; matching from S3FD.
    Two-class softmax is written as a sigmoid of the difference, which is the same function.
    """

    kind: Literal["multibox"] = "multibox"

    matching: Matching = ScaleCompensated()
    negatives_per_positive: float = Field(default=3.0, gt=0)
    """Background anchors a matched anchor, the hardest of each picture."""

    box_weight: float = Field(default=1.0, ge=0)
    landmark_weight: float = Field(default=1.0, ge=0)
    """Only for detectors with landmarks, and only on landmarks that are annotated."""

    def __call__(self, detector: Detector, raw: RawTensors, batch: Batch) -> Loss:
        """Return the loss of ``raw``, the detector's answer to ``batch``."""
        height, width = batch.images.shape[-2:]
        anchors = torch.tensor(
            detector.spec.anchors.anchors(height, width), device=raw.logits.device
        )
        targets = self.targets(batch.faces, anchors, detector.spec.codec)
        positive = targets.positive
        count = positive.sum().clamp(min=1)

        hard = self.hardest(raw.logits.detach(), positive)
        wrong = F.softplus(torch.where(positive, -raw.logits, raw.logits))
        parts = {"class": wrong[positive | hard].sum() / count}
        offsets = raw.offsets[positive]
        parts["box"] = F.smooth_l1_loss(offsets, targets.offsets, reduction="sum") / count
        total = parts["class"] + self.box_weight * parts["box"]
        if raw.landmarks is not None and targets.landmarks is not None:
            known = targets.landmarks.isfinite().all(dim=2)
            points = F.smooth_l1_loss(
                raw.landmarks[positive][known], targets.landmarks[known], reduction="sum"
            )
            faces = known.sum() / known.shape[1]
            parts["landmarks"] = points / faces.clamp(min=1)
            total = total + self.landmark_weight * parts["landmarks"]
        return Loss(total, {name: part.detach() for name, part in parts.items()})

    def targets(self, faces: Sequence[Faces], anchors: Tensor, codec: BoxCodec) -> Targets:
        """Match every picture of a batch."""
        positive, offsets, landmarks = [], [], []
        with_points = any(f.landmarks is not None for f in faces)
        for found in faces:
            boxes = torch.tensor(found.boxes, device=anchors.device)
            assignment = self.matching(boxes, anchors)
            at = assignment.positive
            positive.append(at)
            if len(boxes):
                offsets.append(codec.encode(boxes[assignment.face[at]], anchors[at]))
            if with_points and len(boxes):
                points = landmarks_of(found, boxes)[assignment.face[at]]
                landmarks.append(codec.encode_points(points, anchors[at]))
        empty = anchors.new_zeros(0, 4)
        return Targets(
            torch.stack(positive),
            torch.cat(offsets) if offsets else empty,
            torch.cat(landmarks) if landmarks else None,
        )

    def hardest(self, logits: Tensor, positive: Tensor) -> Tensor:
        """Return a mask of the background anchors with the largest loss, picture by picture."""
        wanted = (positive.sum(dim=1) * self.negatives_per_positive).long()
        wanted = torch.minimum(wanted, (~positive).sum(dim=1))
        background = logits.masked_fill(positive, -torch.inf)
        ranked = background.topk(max(int(wanted.max()), 1), dim=1).indices
        taken = torch.arange(ranked.shape[1], device=logits.device)[None] < wanted[:, None]
        return torch.zeros_like(positive).scatter_(1, ranked, taken)


def landmarks_of(faces: Faces, boxes: Tensor) -> Tensor:
    """Return the landmarks ``(n, 5, 2)`` of annotated faces beside their ``boxes``; NaN if none."""
    if faces.landmarks is None:
        return boxes.new_full((len(boxes), 5, 2), torch.nan)
    return torch.tensor(faces.landmarks, device=boxes.device)
