"""Which anchor has to find which face."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

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


class SimOta(Value):
    """Matching by what the detector says: each face takes the cells that serve it best already.

    Cells in a face, or near its middle, are candidates. A face takes as many as the overlaps of
    the ``most`` best add up to, those of the lowest cost: unlikely score, poor overlap, and far
    dearer than both, not being in the face and near its middle. A cell that several faces want
    goes to the one it costs least.

    Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430, section 2.1
    (SimOTA); used by Wu et al., "YuNet", 2023.
    """

    kind: Literal["sim_ota"] = "sim_ota"
    radius: float = Field(default=2.5, gt=0)
    """How near the middle of a face is near, in strides."""

    most: int = Field(default=10, gt=0)
    """So many cells can one face have."""

    overlap_weight: float = Field(default=3.0, ge=0)
    """Of the logarithm of the overlap, against that of the score."""

    @torch.no_grad()
    def __call__(self, boxes: Tensor, cells: Tensor, logits: Tensor, found: Tensor) -> Assignment:
        """Assign ``boxes`` (corners, ``(n, 4)``) to cells.

        Args:
            boxes: The faces.
            cells: Middle x and y, stride, stride; shape ``(a, 4)``.
            logits: What each cell says of being a face, ``(a,)``.
            found: The box each cell predicts, corners, ``(a, 4)``.
        """
        nothing = _background(cells)
        if not len(boxes):
            return nothing
        middle = cells[:, None, :2]
        inside = ((middle > boxes[:, :2]) & (middle < boxes[:, 2:])).all(dim=2)
        away = (middle - (boxes[:, :2] + boxes[:, 2:]) / 2).abs()
        near = (away < self.radius * cells[:, None, 2:]).all(dim=2)
        candidate = (inside | near).any(dim=1).nonzero()[:, 0]
        if not len(candidate):
            return nothing
        table = overlaps(_centred(found[candidate]), boxes)
        cost = F.softplus(-logits[candidate])[:, None] - self.overlap_weight * (table + 1e-8).log()
        cost = cost + _FORBIDDING * ~(inside & near)[candidate]

        most = min(self.most, len(candidate))
        wanted = table.topk(most, dim=0).values.sum(dim=0).int().clamp(min=1)
        cheapest = cost.topk(most, dim=0, largest=False).indices
        taken = torch.arange(most, device=cost.device)[:, None] < wanted
        chosen = torch.zeros_like(table, dtype=torch.bool).scatter_(0, cheapest, taken)
        nothing.face[candidate] = cost.masked_fill(~chosen, torch.inf).argmin(dim=1)
        nothing.positive[candidate] = chosen.any(dim=1)
        return nothing


_FORBIDDING = 1e5


def _centred(boxes: Tensor) -> Tensor:
    """Corners to centre and sides."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=1)


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
