"""IoU-aware: scores that say how well a box fits, and boxes that learn from their overlap."""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from slimface.core.anchors import AnchorGrid
from slimface.core.faces import Floats
from slimface.core.value import Value
from slimface.data.batches import Batch
from slimface.model.detector import Detector, RawTensors
from slimface.train.assign import SimOta
from slimface.train.criterion import Loss, landmarks_of

_SMOOTH = 0.1
"""Below this, the loss of a box is a parabola."""


class IouAware(Value):
    """Cross entropy of the score with the overlap of the box, and the extended overlap itself.

    All terms are summed and divided by the number of matched anchors of the batch. A matched
    anchor's score is to be the overlap of its box with the face, any other's to be nothing: no
    background is chosen, since SimOTA's matched anchors are where the detector looks already.

    Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence
    Research, 2023, section 3.3. Differs in that the two scores of YuNet are trained as their
    product, which is what detection reads (``score_power`` 2: its score is the root of that).
    """

    kind: Literal["iou_aware"] = "iou_aware"
    matching: SimOta = SimOta()
    score_power: Literal[1, 2] = 2
    """What is compared with the overlap: the score, or its square."""

    box_weight: float = Field(default=5.0, ge=0)
    landmark_weight: float = Field(default=0.1, ge=0)
    """Only for detectors with landmarks, and only on landmarks that are annotated."""

    def __call__(self, detector: Detector, raw: RawTensors, batch: Batch) -> Loss:
        """Return the loss of ``raw``, the detector's answer to ``batch``."""
        spec, device = detector.spec, raw.logits.device
        size = batch.images.shape[-2:]
        anchors = torch.tensor(spec.anchors.anchors(*size), device=device)
        cells = torch.tensor(cells_of(spec.anchors, *size), device=device)
        boxes = spec.codec.decode(raw.offsets, anchors)
        matched = self._matched(raw, boxes, cells, batch)
        at = matched.positive
        count = at.sum().clamp(min=1)

        overlap, box_loss = extended_overlap(boxes[at], matched.boxes)
        wanted = torch.zeros_like(raw.logits)
        wanted[at] = overlap.detach().clamp(min=0)
        parts = {"class": self._entropy(raw.logits, wanted).sum() / count}
        parts["box"] = box_loss.sum() / count
        total = parts["class"] + self.box_weight * parts["box"]
        if raw.landmarks is not None and matched.landmarks is not None:
            where = anchors.expand(*at.shape, 4)[at]
            points = spec.codec.encode_points(matched.landmarks, where)
            known = points.isfinite().all(dim=2)
            loss = F.smooth_l1_loss(raw.landmarks[at][known], points[known], reduction="sum")
            parts["landmarks"] = loss / (known.sum() / known.shape[1]).clamp(min=1)
            total = total + self.landmark_weight * parts["landmarks"]
        return Loss(total, {name: part.detach() for name, part in parts.items()})

    def _matched(self, raw: RawTensors, boxes: Tensor, cells: Tensor, batch: Batch) -> "_Matched":
        positive, faces, landmarks = [], [], []
        with_points = any(found.landmarks is not None for found in batch.faces)
        for i, annotated in enumerate(batch.faces):
            truth = torch.tensor(annotated.boxes, device=boxes.device)
            match = self.matching(truth, cells, raw.logits[i].detach(), boxes[i].detach())
            positive.append(match.positive)
            face = match.face[match.positive]
            faces.append(truth[face])
            if with_points:
                landmarks.append(landmarks_of(annotated, truth)[face])
        return _Matched(
            torch.stack(positive), torch.cat(faces), torch.cat(landmarks) if landmarks else None
        )

    def _entropy(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Cross entropy of ``score ** score_power``, in which nothing cancels.

        For the square: log(1 - s s) = log(1 - s) + log(1 + s).
        """
        yes = self.score_power * F.logsigmoid(logits)
        no = F.logsigmoid(-logits)
        if self.score_power == 2:
            no = no + logits.sigmoid().log1p()
        return -(wanted * yes + (1 - wanted) * no)


class _Matched(NamedTuple):
    positive: Tensor
    """Shape ``(b, anchors)``, bool."""

    boxes: Tensor
    """Shape ``(positives, 4)``: the face of each, corners."""

    landmarks: Tensor | None
    """Shape ``(positives, k, 2)``, NaN where a face has none; None if no face of the batch has."""


def extended_overlap(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the overlap of pairs of boxes, below zero where they are apart, and the loss from it.

    So boxes that do not touch still have a gradient towards each other. A gap along one side
    counts as an overlap of that length below zero, times how far the other side reaches from the
    corner of both.

    Source: Peng and Yu, "A Systematic IoU-Related Method: Beyond Simplified Regression for Better
    Localization", IEEE TIP 2021, arXiv:2112.01793 (EIoU, smoothed near zero).

    Args:
        found: Corners, shape ``(n, 4)``.
        wanted: Corners, shape ``(n, 4)``.
    """
    corner = torch.minimum(found[:, :2], wanted[:, :2])
    start = torch.maximum(found[:, :2], wanted[:, :2]) - corner
    end = torch.minimum(found[:, 2:], wanted[:, 2:]) - corner
    least, most = torch.minimum(start, end), torch.maximum(start, end)
    shared = (
        end.prod(dim=1) + least.prod(dim=1) - start[:, 0] * most[:, 1] - most[:, 0] * start[:, 1]
    )
    areas = sum((box[:, 2:] - box[:, :2]).prod(dim=1) for box in (found, wanted))
    overlap = shared / (areas - shared).clamp(min=1e-7)
    miss = 1 - overlap
    return overlap, torch.where(miss < _SMOOTH, miss * miss / (2 * _SMOOTH), miss - _SMOOTH / 2)


@lru_cache(maxsize=64)
def cells_of(grid: AnchorGrid, height: int, width: int) -> Floats:
    """Return the middle and stride of each anchor's cell: ``(anchors, 4)``, as anchors are."""
    levels = tuple(
        level.model_copy(update={"sizes": (float(level.stride),) * len(level.sizes)})
        for level in grid.levels
    )
    return AnchorGrid(levels=levels).anchors(height, width)
