from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.spec import WholePicture
from slimface.data.labelled import Labelled, LabelledSet
from slimface.deploy.classify import ClassPipeline
from slimface.errors import UsageError
from slimface.evaluate.accuracy import accuracy, wilson
from slimface.model.classifier import classifier

SPEC = classifier("by-hand", ("dark", "grey", "bright"), preprocess=WholePicture(
    height_px=4, width_px=4
))  # fmt: skip


def by_brightness(images: np.ndarray) -> np.ndarray:
    """Logits that are nearest to zero for the class whose brightness is nearest."""
    mean = images.mean(axis=(1, 2, 3))
    return -np.abs(mean[:, None] - np.array([[0, 128, 255]])).astype(np.float32)


@pytest.fixture
def pictures(tmp_path: Path) -> LabelledSet:
    found = []
    for i, (value, label) in enumerate([(0, 0), (10, 0), (120, 1), (250, 1), (255, 2)]):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((9, 7, 3), value, dtype=np.uint8))
        found.append(Labelled(path.name, path, label))
    return LabelledSet("by hand", SPEC.classes, tuple(found))


def test_four_of_five_by_hand(pictures: LabelledSet) -> None:
    pipeline = ClassPipeline(SPEC, by_brightness, identity=lambda: "me")
    result = accuracy(pipeline, pictures)
    assert result.top1 == 0.8 and result.top5 == 1.0
    assert result.confusion == ((2, 0, 0), (0, 1, 1), (0, 0, 1))
    assert result.by_class() == {"dark": 1.0, "grey": 0.5, "bright": 1.0}
    assert result.confused() == [("grey", "bright", 1)]
    assert result.protocol.truth_sha256 == pictures.fingerprint()


def test_the_stamp_goes_with_the_rule(pictures: LabelledSet) -> None:
    pipeline = ClassPipeline(SPEC, by_brightness, identity=lambda: "me")
    rule = SPEC.preprocess.model_copy(update={"fit": "crop"})
    cropped = SPEC.model_copy(update={"preprocess": rule})
    other = ClassPipeline(cropped, by_brightness, identity=lambda: "me")
    assert accuracy(pipeline, pictures).stamp != accuracy(other, pictures).stamp


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81/263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)


def test_no_pictures_and_other_classes_are_refused(pictures: LabelledSet) -> None:
    pipeline = ClassPipeline(SPEC, by_brightness, identity=lambda: "me")
    with pytest.raises(UsageError, match="no picture"):
        accuracy(pipeline, pictures.subset([]))
    others = LabelledSet("others", ("one", "two", "three"), pictures.pictures)
    with pytest.raises(UsageError, match="not the same"):
        accuracy(pipeline, others)
