import torch
from torch.nn import functional as F

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.model.detector import Detector, RawTensors
from slimface.train.criterion import MultiBox

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
