import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.train.assign import BestOverlap, ScaleCompensated, overlaps

GRID = AnchorGrid(levels=(AnchorLevel(stride=8, sizes=(16,)), AnchorLevel(stride=16, sizes=(32,))))


def corners(anchors: torch.Tensor) -> torch.Tensor:
    half = anchors[:, 2:] / 2
    return torch.cat([anchors[:, :2] - half, anchors[:, :2] + half], dim=1)


def drawn_boxes(seed: int, count: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 50, (count, 2))
    return torch.tensor(np.hstack([start, start + rng.uniform(4, 60, (count, 2))])).float()


def test_overlaps_are_those_of_torchvision() -> None:
    anchors, boxes = torch.tensor(GRID.anchors(64, 64)), drawn_boxes(1, 7)
    torch.testing.assert_close(overlaps(anchors, boxes), box_iou(corners(anchors), boxes))


def plain_assignment(boxes: torch.Tensor, anchors: torch.Tensor) -> tuple[list[int], list[bool]]:
    """The published matching, anchor by anchor, from its description."""
    table = box_iou(corners(anchors), boxes).tolist()
    best = [max(row) for row in table]
    face = [row.index(max(row)) for row in table]
    best_of_face = [max(row[j] for row in table) for j in range(len(boxes))]
    for j in range(len(boxes)):
        column = [row[j] for row in table]
        i = column.index(max(column))
        best[i], face[i] = 2.0, j
    positive = [value >= 0.35 for value in best]
    extra = sum(v >= 0.35 for v in best_of_face) + sum(v >= 0.5 for v in best_of_face)
    ranked = sorted(
        (i for i, v in enumerate(best) if 0.1 < v < 0.35), key=lambda i: best[i], reverse=True
    )
    for i in ranked[: extra // 2]:
        positive[i] = True
    return face, positive


@given(st.integers(0, 10_000), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_matching_is_that_of_a_plain_loop(seed: int, count: int) -> None:
    anchors, boxes = torch.tensor(GRID.anchors(64, 64)), drawn_boxes(seed, count)
    found = ScaleCompensated()(boxes, anchors)
    face, positive = plain_assignment(boxes, anchors)
    # Small anchors inside one large face tie, and which of them joins is open: what counts is
    # how well the chosen ones overlap the faces they answer for.
    table = box_iou(corners(anchors), boxes)
    ours = [float(table[i, found.face[i]]) for i in found.positive.nonzero().flatten().tolist()]
    plain = [float(table[i, face[i]]) for i, chosen in enumerate(positive) if chosen]
    assert sorted(ours) == pytest.approx(sorted(plain), abs=1e-5)


def test_every_face_has_an_anchor_however_small() -> None:
    anchors = torch.tensor(GRID.anchors(64, 64))
    found = ScaleCompensated()(torch.tensor([[10.0, 10, 12, 12]]), anchors)
    assert int(found.positive.sum()) == 1


def test_the_later_face_wins_an_anchor_that_two_claim() -> None:
    anchors = torch.tensor([[8.0, 8, 16, 16]])
    boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 15, 15]])
    assert ScaleCompensated()(boxes, anchors).face.tolist() == [1]


def test_no_face_matches_nothing() -> None:
    anchors = torch.tensor(GRID.anchors(32, 32))
    assert not ScaleCompensated()(torch.zeros(0, 4), anchors).positive.any()


def plain_best_overlap(boxes: torch.Tensor, anchors: torch.Tensor) -> tuple[list[int], list[bool]]:
    """RetinaFace's matching, anchor by anchor and face by face, from its description."""
    table = box_iou(corners(anchors), boxes).tolist()
    best = [max(row) for row in table]
    face = [row.index(max(row)) for row in table]
    for j in range(len(boxes)):
        column = [row[j] for row in table]
        if max(column) >= 0.2:
            i = column.index(max(column))
            best[i], face[i] = 2.0, j
    return face, [value >= 0.35 for value in best]


@given(st.integers(0, 10_000), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_best_overlap_is_the_published_rule(seed: int, count: int) -> None:
    boxes, anchors = drawn_boxes(seed, count), torch.tensor(GRID.anchors(64, 64))
    found = BestOverlap()(boxes, anchors)
    face, positive = plain_best_overlap(boxes, anchors)
    assert found.positive.tolist() == positive
    assert found.face[found.positive].tolist() == [
        one for one, is_face in zip(face, positive, strict=True) if is_face
    ]


def test_a_face_that_no_anchor_overlaps_takes_no_anchor_from_another() -> None:
    anchors = torch.tensor([[20.0, 20, 16, 16]])
    face, speck = [12.0, 12, 28, 28], [19.0, 19, 21, 21]
    found = BestOverlap()(torch.tensor([face, speck]), anchors)
    assert found.face.tolist() == [0]
    assert found.positive.tolist() == [True]
    assert not BestOverlap()(torch.tensor([speck]), anchors).positive.any()
    assert not BestOverlap()(torch.zeros(0, 4), anchors).positive.any()
