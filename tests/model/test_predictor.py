"""A torch detector as a network of the pipeline."""

import numpy as np
import pytest
import torch

from slimface.core.faces import Faces
from slimface.deploy.pipeline import Pipeline
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.predictor import TorchNetwork


@pytest.fixture
def detector():
    return build(eresfd.naver(width=8), seed=1).eval()


IMAGES = np.random.default_rng(0).normal(0, 50, (2, 3, 64, 96)).astype(np.float32)


@pytest.mark.parametrize("channels_last", [False, True])
def test_it_says_what_the_detector_says(detector, channels_last):
    with torch.inference_mode():
        expected = detector(torch.from_numpy(IMAGES))
    raw = TorchNetwork(detector, channels_last=channels_last)(IMAGES)
    assert raw.logits.dtype == np.float32
    assert raw.landmarks is None
    np.testing.assert_allclose(raw.logits, expected.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(raw.offsets, expected.offsets.numpy(), atol=1e-4)


def test_a_detector_in_training_stays_in_training_and_learns_nothing(detector):
    detector.train()
    before = detector.base.conv1[1].running_mean.clone()
    TorchNetwork(detector)(IMAGES)
    assert detector.training
    assert torch.equal(detector.base.conv1[1].running_mean, before)


def test_a_pipeline_detects_with_it(detector):
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    faces = Pipeline(detector.spec, TorchNetwork(detector)).detect(picture)
    assert isinstance(faces, Faces)
