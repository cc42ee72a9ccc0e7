import numpy as np
import torch
from torch.nn import functional as F

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.model import retinaface
from slimface.model.build import build
from slimface.model.detector import Detector, RawTensors
from slimface.train.criterion import MultiBox
from slimface.train.presets import preset

SIZE = 64


def answer(detector: Detector, count: int, seed: int = 0) -> RawTensors:
    generator = torch.Generator().manual_seed(seed)
    anchors = detector.spec.anchors.count(SIZE, SIZE)
    return RawTensors(
        torch.randn(count, anchors, generator=generator),
        torch.randn(count, anchors, 4, generator=generator),
    )


def batch(*faces: Faces) -> Batch:
    return Batch(torch.zeros(len(faces), 3, SIZE, SIZE, dtype=torch.uint8), list(faces))


def test_the_loss_is_that_of_two_class_softmax_written_out(detector: Detector) -> None:
    faces = [Faces.annotated([[4, 4, 30, 36], [40, 30, 60, 60]]), Faces.annotated([[9, 9, 20, 20]])]
    raw, anchors = answer(detector, 2), torch.tensor(detector.spec.anchors.anchors(SIZE, SIZE))
    criterion = MultiBox()
    targets = criterion.targets(faces, anchors, detector.spec.codec)
    total_class, total_box, matched = 0.0, 0.0, 0
    start = 0
    for i in range(2):
        positive = targets.positive[i]
        two = torch.stack([torch.zeros_like(raw.logits[i]), raw.logits[i]], dim=1)
        losses = F.cross_entropy(two, positive.long(), reduction="none")
        count = int(positive.sum())
        negatives = losses[~positive].sort(descending=True).values[: 3 * count]
        total_class += float(losses[positive].sum() + negatives.sum())
        want = targets.offsets[start : start + count]
        total_box += float(F.smooth_l1_loss(raw.offsets[i][positive], want, reduction="sum"))
        start += count
        matched += count
    loss = criterion(detector, raw, batch(*faces))
    assert abs(float(loss.total) - (total_class + total_box) / matched) < 1e-4
    assert set(loss.parts) == {"class", "box"}


def test_perfect_answers_cost_almost_nothing(detector: Detector) -> None:
    faces = Faces.annotated([[4, 4, 30, 36]])
    anchors = torch.tensor(detector.spec.anchors.anchors(SIZE, SIZE))
    targets = MultiBox().targets([faces], anchors, detector.spec.codec)
    offsets = torch.zeros(1, len(anchors), 4)
    offsets[targets.positive] = targets.offsets
    raw = RawTensors(torch.where(targets.positive, 20.0, -20.0), offsets)
    assert float(MultiBox()(detector, raw, batch(faces)).total) < 1e-5


def test_a_picture_without_faces_asks_for_nothing(detector: Detector) -> None:
    loss = MultiBox()(detector, answer(detector, 1), batch(Faces.none()))
    assert float(loss.total) == 0


def test_the_gradient_reaches_logits_and_offsets(detector: Detector) -> None:
    raw = answer(detector, 1)
    raw.logits.requires_grad_(), raw.offsets.requires_grad_()
    MultiBox()(detector, raw, batch(Faces.annotated([[4, 4, 30, 36]]))).total.backward()
    assert raw.logits.grad is not None and raw.logits.grad.abs().sum() > 0
    assert raw.offsets.grad is not None and raw.offsets.grad.abs().sum() > 0


def retinaface_answer(count: int) -> tuple[Detector, RawTensors]:
    detector = build(retinaface.retinaface(width=4), seed=0)
    raw = answer(detector, count)
    points = torch.randn(*raw.logits.shape, 5, 2, generator=torch.Generator().manual_seed(1))
    return detector, raw._replace(landmarks=points)


def test_only_annotated_landmarks_are_learnt_and_weigh_as_published() -> None:
    """Summed over points and coordinates, divided by the matched anchors that have them."""
    boxes = np.array([[4, 4, 30, 36], [34, 30, 60, 60]], dtype=np.float32)
    points = np.full((2, 5, 2), np.nan, dtype=np.float32)
    points[0] = [[10, 12], [22, 12], [16, 20], [11, 28], [21, 28]]
    faces = Faces.annotated(boxes, points)
    detector, raw = retinaface_answer(1)
    criterion = preset(detector.spec).criterion
    assert isinstance(criterion, MultiBox)
    anchors = torch.tensor(detector.spec.anchors.anchors(SIZE, SIZE))
    assignment = criterion.matching(torch.tensor(boxes), anchors)
    total, count = 0.0, 0
    for i in assignment.positive.nonzero().flatten().tolist():
        if assignment.face[i] == 0:
            x, y, width, height = anchors[i].tolist()
            want = (torch.tensor(points[0]) - torch.tensor([x, y])) / torch.tensor(
                [0.1 * width, 0.1 * height]
            )
            total += float(F.smooth_l1_loss(raw.landmarks[0, i], want, reduction="sum"))
            count += 1
    assert count < int(assignment.positive.sum())
    loss = criterion(detector, raw, batch(faces))
    assert abs(float(loss.parts["landmarks"]) - total / count) < 1e-3
    whole = loss.parts["class"] + 2 * loss.parts["box"] + loss.parts["landmarks"]
    torch.testing.assert_close(loss.total, whole)


def test_without_annotated_landmarks_there_is_nothing_to_learn_of_them() -> None:
    detector, raw = retinaface_answer(2)
    plain, marked = [[4, 4, 30, 36]], np.full((1, 5, 2), np.nan)
    loss = MultiBox()(detector, raw, batch(Faces.annotated(plain), Faces.annotated(plain)))
    assert "landmarks" not in loss.parts
    mixed = batch(Faces.annotated(plain), Faces.annotated(plain, marked))
    assert float(MultiBox()(detector, raw, mixed).parts["landmarks"]) == 0


def test_a_face_with_some_of_its_landmarks_teaches_those() -> None:
    points = np.array([[[10, 12], [22, 12], [np.nan] * 2, [11, 28], [21, 28]]])
    detector, raw = retinaface_answer(1)
    raw.landmarks.requires_grad_()
    faces = Faces.annotated([[4, 4, 30, 36]], points)
    MultiBox()(detector, raw, batch(faces)).total.backward()
    taught = raw.landmarks.grad[0].abs().sum(dim=(0, 2)) > 0
    assert taught.tolist() == [True, True, False, True, True]
