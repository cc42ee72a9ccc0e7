"""What does not belong together: a clear error or a correct result, never silent nonsense."""

from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.errors import CheckpointError
from slimface.model import eresfd, yunet, zoo
from slimface.model.build import build
from slimface.model.predictor import TorchNetwork
from slimface.train.criterion import MultiBox
from slimface.train.iou_aware import IouAware

FAMILIES = ("eresfd", "extd-32", "retinaface-mobilenet025", "yunet-n", "mtcnn")
VARIANTS = (("extd-32", "extd-64"), ("extd-48", "extd-64"), ("retinaface:ghostnet", "yunet-n"))


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State dicts of every family, as their authors save them."""
    folder = tmp_path_factory.mktemp("states")
    for name in {*FAMILIES, *(owner for owner, _ in VARIANTS)}:
        detector = build(zoo.entry(name).spec, seed=0)
        torch.save(detector.state_dict(), folder / f"{name.replace(':', '-')}.pth")
    return folder


@pytest.mark.parametrize(("owner", "other"), [*permutations(FAMILIES, 2), *VARIANTS])
def test_weights_of_another_family_or_variant_are_refused(
    owner: str, other: str, states: Path
) -> None:
    file = states / f"{owner.replace(':', '-')}.pth"
    with pytest.raises(CheckpointError, match=r"\n[A-Z]") as caught:
        zoo.import_weights(file, like=other)
    assert other in str(caught.value) or file.name in str(caught.value)


@pytest.mark.parametrize("criterion", [MultiBox(), IouAware()])
def test_a_picture_with_2000_faces_is_learnt_from(criterion: MultiBox | IouAware) -> None:
    """Many of them smaller than a cell, so that several want one anchor."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 310, (2000, 2))
    sides = rng.uniform(2, 12, (2000, 1))
    crowd = Faces.annotated(np.hstack([corners, corners + sides]).astype(np.float32))
    detector = build(yunet.yunet(width=8), seed=0)
    images = torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8)
    raw = detector(detector.prepare(images))
    loss = criterion(detector, raw, Batch(images, [crowd]))
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_two_thousand_faces_are_found_up_to_the_cap() -> None:
    """A detector that calls every anchor a face: the best stay, and none overlaps another."""
    detector = build(eresfd.naver(width=4), seed=0).eval()
    for head in detector.conf:
        torch.nn.init.constant_(head.bias[-1:], 9.0)
    pipeline = Pipeline(detector.spec, TorchNetwork(detector))
    picture = np.full((480, 640, 3), 127, dtype=np.uint8)
    for cap in (10, 2000):
        found = pipeline.detect(picture, Settings(score_floor=0.1, nms_overlap=0.01, cap=cap))
        assert 10 <= len(found) <= cap
        assert (np.diff(found.scores) <= 0).all() and np.isfinite(found.boxes).all()


@pytest.mark.parametrize("name", ["eresfd", "yunet-n", "retinaface-mobilenet025"])
def test_a_grey_picture_is_the_picture_of_three_equal_colours(name: str, tmp_path: Path) -> None:
    """In the file one channel, for the detector three."""
    grey = np.random.default_rng(0).integers(0, 256, (70, 90), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    read = read_picture(tmp_path / "grey.png")
    assert np.array_equal(read, np.repeat(grey[..., None], 3, axis=2))
    detector = build(zoo.entry(name).spec, seed=0).eval()
    pipeline = Pipeline(detector.spec, TorchNetwork(detector))
    assert np.isfinite(pipeline.detect(read, Settings(score_floor=0.01)).boxes).all()
