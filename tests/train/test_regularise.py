import numpy as np
import pytest
import torch

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.errors import RecipeError, UsageError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.train.around import begin_epoch, bind, innermost
from slimface.train.criterion import Loss, MultiBox
from slimface.train.regularise import GroupLasso, GrowingL2
from slimface.train.step import Train

GROUP = "base.conv1.0"


def batch() -> Batch:
    faces = Faces.annotated(np.array([[8, 8, 40, 40]], dtype=np.float32))
    return Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [faces])


def loss(criterion: object, detector: Detector, epoch: int = 0) -> Loss:
    at_work = bind(criterion, detector)  # type: ignore[arg-type]
    begin_epoch(at_work, epoch)
    one = batch()
    return at_work(detector, detector(detector.prepare(one.images)), one)


@pytest.fixture
def detector() -> Detector:
    return build(eresfd.naver(width=4), seed=0).eval()


def of_channel(detector: Detector, channel: int) -> list[torch.Tensor]:
    """By hand: all that belongs to a channel of the first convolution."""
    modules = detector.state_dict(keep_vars=True)
    return [
        modules["base.conv1.0.weight"][channel],
        modules["base.conv1.1.weight"][channel],
        modules["base.conv1.1.bias"][channel],
        modules["base.conv2.0.weight"][:, channel],
    ]


def test_growing_l2_is_half_the_sum_of_squares_of_the_channels_times_a_rising_weight(
    detector: Detector,
) -> None:
    rule = GrowingL2(channels={GROUP: (1,)}, ceiling=0.8, epochs=4)
    squares = sum(float(part.detach().square().sum()) for part in of_channel(detector, 1))
    plain = float(loss(MultiBox(), detector).total.detach())
    for epoch, weight in ((0, 0.2), (1, 0.4), (3, 0.8), (9, 0.8)):
        found = loss(rule, detector, epoch)
        assert float(found.parts["growing_l2"]) == pytest.approx(weight / 2 * squares, rel=1e-5)
        assert float(found.total.detach()) == pytest.approx(plain + weight / 2 * squares, rel=1e-5)


def test_the_lasso_is_the_sum_over_channels_of_their_norms_times_the_root_of_their_size(
    detector: Detector,
) -> None:
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
        for part in of_channel(detector, 1):
            part.fill_(0.1)
    count = sum(part.numel() for part in of_channel(detector, 1))
    first = float(loss(GroupLasso(weight=1.0), detector).parts["lasso"])
    # The channel of the next layer owns the same weights on its other side.
    readers = 1e-6 * len([g for g in channel_groups(detector) if g.prunable])
    written = float(torch.tensor(0.1)) * np.sqrt(count) * np.sqrt(count)
    assert first >= written - readers
    with torch.no_grad():
        for part in of_channel(detector, 1):
            part.fill_(0.2)
    assert float(loss(GroupLasso(weight=1.0), detector).parts["lasso"]) == pytest.approx(
        2 * first, rel=0.02
    )


def test_the_lasso_has_a_gradient_at_silent_channels(detector: Detector) -> None:
    with torch.no_grad():
        for part in of_channel(detector, 0):
            part.zero_()
    loss(GroupLasso(weight=1.0), detector).total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_weight_zero_changes_nothing(detector: Detector) -> None:
    plain, with_zero = loss(MultiBox(), detector), loss(GroupLasso(weight=0), detector)
    assert torch.equal(plain.total, with_zero.total)


def test_criteria_may_be_around_each_other_and_the_innermost_knows_the_truth(
    detector: Detector,
) -> None:
    inner = MultiBox(box_weight=2)
    rule = GroupLasso(of=GrowingL2(of=inner, channels={GROUP: (0,)}, epochs=2))
    assert innermost(rule) is inner
    assert {"class", "box", "growing_l2", "lasso"} == set(loss(rule, detector).parts)


def test_a_recipe_names_criteria_by_kind() -> None:
    data = {"schedule": {"epochs": 1}, "criterion": {"kind": "group_lasso", "of": {"kind": "no"}}}
    with pytest.raises(RecipeError, match="multibox"):
        Train.parse(data, where="x")
    step = Train.parse({**data, "criterion": {"kind": "group_lasso"}}, where="x")
    assert step.criterion == GroupLasso() and Train.parse(step.model_dump_json(), where="y") == step


def test_channels_of_another_model_are_refused(detector: Detector) -> None:
    for channels in ({"base.nothing": (0,)}, {GROUP: (99,)}):
        with pytest.raises(UsageError, match="for another model"):
            bind(GrowingL2(channels=channels, epochs=1), detector)
