"""Which anchor has to find which face."""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from slimface.core.value import Value


class Assignment(NamedTuple):
    """The face each anchor answers for."""

    face: Tensor
    """Shape ``(anchors,)``, int64: index of the face; meaningless where ``positive`` is False."""

    positive: Tensor
    """Shape ``(anchors,)``, bool."""


def overlaps(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return intersection over union, shape ``(len(anchors), len(boxes))``.

    Args:
        anchors: Centre x, centre y, width, height; shape ``(a, 4)``.
        boxes: Corners; shape ``(n, 4)``.
    """
    half = anchors[:, 2:] / 2
    low = torch.maximum((anchors[:, :2] - half)[:, None], boxes[None, :, :2])
    high = torch.minimum((anchors[:, :2] + half)[:, None], boxes[None, :, 2:])
    shared = (high - low).clamp_(min=0).prod(dim=2)
    sides = boxes[:, 2:] - boxes[:, :2]
    union = anchors[:, 2:].prod(dim=1)[:, None] + sides.prod(dim=1)[None] - shared
    return shared / union.clamp_(min=1e-9)


class ScaleCompensated(Value):
    """Best-overlap matching in which faces of awkward sizes get anchors too.

    Each anchor takes the face it overlaps most, if by ``positive``; each face has at least its
    best anchor, and where two faces claim one anchor the later face has it. Then the anchors with
    an overlap between ``fallback`` and ``positive`` are ranked, and the first N join, N being the
    mean number of faces whose best overlap reaches ``positive`` and ``strong``.

    Source: Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017,
    arXiv:1708.05237, section 3.2. As in the published code of EResFD, N is taken over the picture
    and not for each face.
    """

    kind: Literal["scale_compensated"] = "scale_compensated"
    fallback: float = Field(default=0.1, ge=0, le=1)
    positive: float = Field(default=0.35, ge=0, le=1)
    strong: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, boxes: Tensor, anchors: Tensor) -> Assignment:
        """Assign ``boxes`` (corners, ``(n, 4)``) to ``anchors`` (centre and sides, ``(a, 4)``)."""
        if not len(boxes):
            face = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
            return Assignment(face, torch.zeros_like(face, dtype=torch.bool))
        table = overlaps(anchors, boxes)
        best, face = table.max(dim=1)
        best_of_face, anchor_of_face = table.max(dim=0)
        # A plain scatter leaves it open which of two faces wins; the maximum is the later face.
        order = torch.arange(len(boxes), device=boxes.device)
        claimed = torch.full_like(face, -1)
        claimed.scatter_reduce_(0, anchor_of_face, order, reduce="amax")
        face = torch.where(claimed >= 0, claimed, face)
        best = torch.where(claimed >= 0, torch.full_like(best, 2.0), best)

        positive = best >= self.positive
        matched = (best_of_face >= self.positive).sum() + (best_of_face >= self.strong).sum()
        awkward = torch.where((best > self.fallback) & ~positive, best, torch.zeros_like(best))
        joined = awkward.topk(min(int(matched) // 2, len(anchors)))
        positive[joined.indices[joined.values > 0]] = True
        return Assignment(face, positive)
