import cv2
import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.core.spec import DetectorSpec
from slimface.data.transforms import RetinaFaceAugment
from slimface.errors import UsageError
from slimface.model import zoo
from slimface.train.assign import BestOverlap
from slimface.train.presets import adapted, preset
from slimface.train.step import Train


def spec_of(name: str) -> DetectorSpec:
    return zoo.entry(name).spec


@pytest.mark.parametrize("name", ["eresfd", "extd-32", "retinaface-mobilenet025", "yunet-n"])
def test_every_family_has_a_training_that_is_a_step(name: str) -> None:
    course = preset(spec_of(name))
    assert Train.model_validate(course.model_dump()) == course


def test_retinaface_is_trained_as_published() -> None:
    small = preset(spec_of("retinaface-mobilenet025"))
    plan = small.schedule
    assert (plan.epochs, plan.batch_size, plan.decay_epochs) == (250, 32, (190, 220))
    assert plan.rate_at(0) == pytest.approx(1e-3)
    assert plan.rate_at(200) == pytest.approx(1e-4)
    assert plan.rate_at(249) == pytest.approx(1e-5)
    assert small.criterion.matching == BestOverlap(positive=0.35, claim=0.2)
    assert (small.criterion.negatives_per_positive, small.criterion.box_weight) == (7, 2)
    assert small.augment == RetinaFaceAugment()
    assert small.size_px == 640


def test_yunet_is_trained_on_the_published_crops() -> None:
    course = preset(spec_of("yunet-n"))
    assert course.augment == RetinaFaceAugment(filters="linear", colour_share=0)
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    faces = Faces.annotated([[20, 20, 40, 40]])
    plans = [course.augment.plan((60, 80), faces, np.random.default_rng(i), 64) for i in range(20)]
    assert {plan.interpolation for plan in plans} == {cv2.INTER_LINEAR}
    assert all(plan.colour is None for plan in plans)
    assert plans[0].render(picture).shape == (64, 64, 3)


def test_the_large_retinaface_has_a_course_of_its_own() -> None:
    large = preset(spec_of("retinaface:resnet50"))
    assert (large.schedule.epochs, large.schedule.decay_epochs) == (100, (70, 90))
    assert (large.schedule.batch_size, large.size_px) == (24, 840)


def test_a_shorter_training_falls_at_the_same_shares() -> None:
    plan = adapted(preset(spec_of("retinaface-mobilenet025")), epochs=25).schedule
    assert plan.decay_epochs == (19, 22)
    assert plan.learning_rate == 1e-3


def test_the_rate_of_sgd_goes_with_the_batch_and_adams_does_not() -> None:
    sgd = adapted(preset(spec_of("retinaface-mobilenet025")), batch_size=8).schedule
    adam = adapted(preset(spec_of("eresfd")), batch_size=8).schedule
    assert sgd.learning_rate == pytest.approx(1e-3 / 4)
    assert adam.learning_rate == 1e-3


def test_trained_weights_go_on_slowly_unless_told_otherwise() -> None:
    course = preset(spec_of("eresfd"))
    assert adapted(course, onwards=True).schedule.learning_rate == pytest.approx(1e-4)
    stepped = adapted(preset(spec_of("retinaface-mobilenet025")), onwards=True)
    assert stepped.schedule.learning_rate == pytest.approx(1e-5)
    assert adapted(course, onwards=True, learning_rate=0.5).schedule.learning_rate == 0.5


def test_a_rate_of_one_optimizer_is_not_used_for_another() -> None:
    course = preset(spec_of("retinaface-mobilenet025"))
    with pytest.raises(UsageError, match="for sgd, not for adamw"):
        adapted(course, optimizer="adamw")
    plan = adapted(course, optimizer="adamw", learning_rate=2e-3).schedule
    assert (plan.optimizer, plan.learning_rate) == ("adamw", 2e-3)


def test_a_cascade_is_not_trained_as_a_whole() -> None:
    with pytest.raises(UsageError, match="mtcnn"):
        preset(spec_of("mtcnn"))
