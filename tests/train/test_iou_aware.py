"""SimOTA against plain loops, the extended overlap against geometry, and YuNet's criterion."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.model import eresfd, yunet
from slimface.model.build import build
from slimface.model.detector import Detector, RawTensors
from slimface.train.assign import SimOta
from slimface.train.criteria import AnyCriterion
from slimface.train.iou_aware import IouAware, cells_of, extended_overlap
from slimface.train.presets import preset
from slimface.train.step import Train

SIZE = 96
CELLS = torch.tensor(cells_of(yunet.yunet().anchors, SIZE, SIZE))


def overlap(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (areas - w * h)


def plain_sim_ota(boxes: Tensor, logits: Tensor, found: Tensor) -> dict[int, int]:
    """Cell -> face, one face after the other."""
    wishes: dict[int, list[tuple[float, int]]] = {}
    costs: list[dict[int, float]] = []
    shares: list[dict[int, float]] = []
    candidates = set()
    for box in boxes.tolist():
        cost, share = {}, {}
        for i, (x, y, stride, _) in enumerate(CELLS.tolist()):
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            near = max(abs(x - middle[0]), abs(y - middle[1])) < 2.5 * stride
            if inside or near:
                candidates.add(i)
            share[i] = overlap(found[i].tolist(), box)
            score = 1 / (1 + math.exp(-float(logits[i])))
            far = 0 if inside and near else 1e5
            cost[i] = -math.log(score) - 3 * math.log(share[i] + 1e-8) + far
        costs.append(cost)
        shares.append(share)
    for face in range(len(boxes)):
        best = sorted((shares[face][i] for i in candidates), reverse=True)[:10]
        for i in sorted(candidates, key=lambda i: costs[face][i])[: max(1, int(sum(best)))]:
            wishes.setdefault(i, []).append((costs[face][i], face))
    return {i: min(wants)[1] for i, wants in wishes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_sim_ota_is_what_plain_loops_say(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = 60 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat([low, low + 6 + 40 * torch.rand(4, 2, generator=generator)], dim=1)
    logits = 2 * torch.randn(len(CELLS), generator=generator)
    nearest = torch.cdist(CELLS[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(dim=1)
    found = boxes[nearest] + 8 * torch.randn(len(CELLS), 4, generator=generator)
    found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
    match = SimOta()(boxes, CELLS, logits, found)
    at = match.positive.nonzero()[:, 0].tolist()
    assert {i: int(match.face[i]) for i in at} == plain_sim_ota(boxes, logits, found)


def test_every_face_has_a_cell_and_none_more_than_ten() -> None:
    """Also faces that lie in no cell's middle, and on a detector that says nothing yet."""
    boxes = torch.tensor([[1.0, 1, 3, 3], [10, 10, 90, 90], [50.5, 20, 52, 22]])
    found = torch.cat([CELLS[:, :2] - 4, CELLS[:, :2] + 4], dim=1)
    match = SimOta()(boxes, CELLS, torch.zeros(len(CELLS)), found)
    counts = torch.bincount(match.face[match.positive], minlength=3)
    assert counts.min() >= 1 and counts.max() <= 10


def test_a_picture_without_faces_matches_nothing() -> None:
    match = SimOta()(torch.zeros(0, 4), CELLS, torch.zeros(len(CELLS)), torch.zeros(len(CELLS), 4))
    assert not match.positive.any()


def test_cells_have_their_middle_where_the_network_looks() -> None:
    assert CELLS[:2].tolist() == [[4, 4, 8, 8], [12, 4, 8, 8]]
    assert CELLS[-1].tolist() == [80, 80, 32, 32]


def test_the_extended_overlap_is_the_overlap_where_boxes_meet() -> None:
    found = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 3], [0, 0, 4, 4]])
    wanted = torch.tensor([[2.0, 1, 6, 5], [0, 0, 4, 4], [0, 0, 4, 4]])
    share, loss = extended_overlap(found, wanted)
    expected = [overlap(a, b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    np.testing.assert_allclose(share, expected, atol=1e-6)
    np.testing.assert_allclose(loss, [1 - expected[0] - 0.05, 0.7, 0], atol=1e-6)


@pytest.mark.parametrize("towards", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_boxes_apart_are_drawn_together(towards: tuple[float, float]) -> None:
    shift = torch.tensor([*towards, *towards])
    wanted = torch.tensor([[10.0, 10, 14, 14]])
    losses = []
    for distance in (9.0, 7.0, 5.0, 4.5):
        found = (wanted - distance * shift).requires_grad_()
        share, loss = extended_overlap(found, wanted)
        assert share < 0
        loss.sum().backward()
        assert found.grad is not None and (found.grad @ shift) < 0
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)


def perfect(detector: Detector, faces: Faces) -> RawTensors:
    """Cells inside a face near its middle say it exactly; all others are silent."""
    anchors = torch.tensor(detector.spec.anchors.anchors(SIZE, SIZE))
    cells = torch.tensor(cells_of(detector.spec.anchors, SIZE, SIZE))
    box = torch.tensor(faces.boxes[0])
    near = ((cells[:, :2] - (box[:2] + box[2:]) / 2).abs() < 2.5 * cells[:, 2:]).all(dim=1)
    near &= ((cells[:, :2] > box[:2]) & (cells[:, :2] < box[2:])).all(dim=1)
    best = near.nonzero()[:10, 0]
    logits = torch.full((1, len(anchors)), -20.0)
    logits[0, best] = 20.0
    offsets = detector.spec.codec.encode(box.expand(len(anchors), 4), anchors)[None].clone()
    points = None
    if faces.landmarks is not None:
        each = torch.tensor(faces.landmarks[0]).expand(len(anchors), 5, 2)
        points = detector.spec.codec.encode_points(each, anchors)[None].clone()
    return RawTensors(logits, offsets, points)


def batch(*faces: Faces) -> Batch:
    return Batch(torch.zeros(len(faces), 3, SIZE, SIZE, dtype=torch.uint8), list(faces))


@pytest.mark.parametrize("spec", [yunet.yunet(width=8), eresfd.naver(width=4)])
@pytest.mark.parametrize("power", [1, 2])
def test_perfect_answers_cost_almost_nothing(spec, power: int) -> None:
    detector = build(spec, seed=0)
    faces = Faces.annotated([[20, 20, 70, 76]])
    loss = IouAware(score_power=power)(detector, perfect(detector, faces), batch(faces))
    assert float(loss.total) < 1e-3 and set(loss.parts) == {"class", "box"}


def test_the_square_of_the_score_is_compared_with_the_overlap() -> None:
    """Cross entropy is least where they are equal: the published score is a root of a product."""
    wanted = torch.full((1,), 0.49)
    logits = torch.linspace(-6, 6, 4001)
    for power, score in ((1, 0.49), (2, 0.7)):
        losses = IouAware(score_power=power)._entropy(logits, wanted)
        assert float(logits[losses.argmin()].sigmoid()) == pytest.approx(score, abs=2e-3)


def test_landmarks_are_learnt_where_they_are_known() -> None:
    detector = build(yunet.yunet(width=8), seed=0)
    box = [[20.0, 20, 70, 76]]
    points = np.full((1, 5, 2), 40, dtype=np.float32)
    points[0, 3:] = np.nan
    known = Faces.annotated(box, landmarks=points)
    raw = perfect(detector, known)
    criterion = IouAware()
    assert float(criterion(detector, raw, batch(known)).parts["landmarks"]) == pytest.approx(0)
    assert raw.landmarks is not None
    wrong = raw._replace(landmarks=raw.landmarks.nan_to_num() + 1)
    assert float(criterion(detector, wrong, batch(known)).parts["landmarks"]) > 0.1
    assert "landmarks" not in criterion(detector, wrong, batch(Faces.annotated(box))).parts


def test_the_gradient_reaches_everything_and_faceless_pictures_ask_for_silence() -> None:
    detector = build(yunet.yunet(width=8), seed=0).train()
    pictures = 255 * torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    points = np.full((1, 5, 2), 40, dtype=np.float32)
    faces = [Faces.annotated([[20, 20, 70, 76]], landmarks=points), Faces.none()]
    IouAware()(detector, detector(pictures), batch(*faces)).total.backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []
    raw = RawTensors(torch.zeros(1, len(CELLS), requires_grad=True), torch.zeros(1, len(CELLS), 4))
    IouAware()(detector, raw, batch(Faces.none())).total.backward()
    assert (raw.logits.grad > 0).all()


def test_recipes_can_name_it_and_yunet_is_trained_with_it() -> None:
    step = Train.parse(
        {"schedule": {"epochs": 1}, "criterion": {"kind": "iou_aware", "matching": {"radius": 2}}},
        where="test",
    )
    assert step.criterion == IouAware(matching=SimOta(radius=2))
    assert preset(yunet.yunet()).criterion == IouAware()
    assert IouAware.__name__ in str(AnyCriterion)
