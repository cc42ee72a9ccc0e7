"""Which anchor has to find which face."""

from typing import Annotated, Literal, NamedTuple

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
            return _background(anchors)
        table = overlaps(anchors, boxes)
        best_of_face = table.amax(dim=0)
        face, best = _best_face(table, least=0.0)
        positive = best >= self.positive
        matched = (best_of_face >= self.positive).sum() + (best_of_face >= self.strong).sum()
        awkward = torch.where((best > self.fallback) & ~positive, best, torch.zeros_like(best))
        joined = awkward.topk(min(int(matched) // 2, len(anchors)))
        positive[joined.indices[joined.values > 0]] = True
        return Assignment(face, positive)


class BestOverlap(Value):
    """Matching by overlap alone.

    Each anchor takes the face it overlaps most, if by ``positive``; each face that some anchor
    overlaps by ``claim`` has at least the best of these, and where two faces claim one anchor the
    later face has it. A face that no anchor overlaps so far is not learnt.

    Source: Liu et al., "SSD", ECCV 2016, arXiv:1512.02325, section 2.2 (matching strategy), with
    the thresholds of biubug6/Pytorch_Retinaface. There a face below ``claim`` still took its best
    anchor away from the face that had it; here it takes nothing.
    """

    kind: Literal["best_overlap"] = "best_overlap"
    positive: float = Field(default=0.35, ge=0, le=1)
    claim: float = Field(default=0.2, ge=0, le=1)

    def __call__(self, boxes: Tensor, anchors: Tensor) -> Assignment:
        """Assign ``boxes`` (corners, ``(n, 4)``) to ``anchors`` (centre and sides, ``(a, 4)``)."""
        if not len(boxes):
            return _background(anchors)
        face, best = _best_face(overlaps(anchors, boxes), least=self.claim)
        return Assignment(face, best >= self.positive)


Matching = Annotated[ScaleCompensated | BestOverlap, Field(discriminator="kind")]
"""Every rule of matching by position alone."""


def _background(anchors: Tensor) -> Assignment:
    face = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    return Assignment(face, torch.zeros_like(face, dtype=torch.bool))


def _best_face(table: Tensor, *, least: float) -> tuple[Tensor, Tensor]:
    """Return the face of each anchor and their overlap; 2 where a face claims its best anchor.

    Args:
        table: Overlaps, shape ``(anchors, faces)``.
        least: A face whose best anchor overlaps it by less claims none.
    """
    best, face = table.max(dim=1)
    best_of_face, anchor_of_face = table.max(dim=0)
    # A plain scatter leaves it open which of two faces wins; the maximum is the later face.
    order = torch.arange(table.shape[1], device=table.device)
    order = torch.where(best_of_face >= least, order, -1)
    claimed = torch.full_like(face, -1)
    claimed.scatter_reduce_(0, anchor_of_face, order, reduce="amax")
    face = torch.where(claimed >= 0, claimed, face)
    return face, torch.where(claimed >= 0, torch.full_like(best, 2.0), best)
