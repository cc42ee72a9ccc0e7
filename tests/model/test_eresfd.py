"""EResFD against the facts about its published weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.errors import RecipeError
from slimface.model import eresfd, zoo
from slimface.model.build import build
from slimface.model.profile import profile

VARIANTS = {"naver": eresfd.naver, "lfdp": eresfd.lfdp, "bfpgm": eresfd.bfpgm}
GOLDEN = Path(__file__).parents[1] / "golden" / "eresfd.json"


@pytest.mark.parametrize(
    ("variant", "macs_480", "macs_640", "anchors"),
    [
        ("naver", 295.1, 393.3, 34_125),
        ("lfdp", 295.1, 393.3, 34_125),
        ("bfpgm", 295.2, 393.5, 34_200),
    ],
)
def test_it_costs_what_the_published_network_costs(variant, macs_480, macs_640, anchors):
    detector = build(VARIANTS[variant](), seed=0).eval()
    small, large = profile(detector, 480, 640), profile(detector, 640, 640)
    assert small.parameters == large.parameters == 92_208
    assert round(small.macs / 1e6, 1) == macs_480
    assert round(large.macs / 1e6, 1) == macs_640
    with torch.inference_mode():
        raw = detector(torch.zeros(1, 3, 640, 640))
    assert raw.logits.shape == (1, anchors)
    assert raw.offsets.shape == (1, anchors, 4)
    assert detector.spec.anchors.count(640, 640) == anchors


def test_the_state_dict_has_the_published_number_of_tensors():
    assert len(build(eresfd.naver(), seed=0).state_dict()) == 475


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (97, 33), (64, 200)])
def test_every_anchor_of_any_picture_has_a_prediction(variant, size):
    detector = build(VARIANTS[variant](), seed=0).eval()
    with torch.inference_mode():
        raw = detector(torch.zeros(2, 3, *size))
    count = detector.spec.anchors.count(*size)
    assert raw.logits.shape == (2, count)
    assert raw.offsets.shape == (2, count, 4)


def test_one_logit_is_the_softmax_of_two_after_max_out():
    detector = build(eresfd.naver(), seed=3).eval()
    with torch.inference_mode():
        maps = detector.maps(torch.randn(1, 3, 64, 64) * 50)
        raw = detector.read(maps)
    finest = maps[0][0]
    background = finest[:3].max(dim=0).values
    scores = torch.stack([background, finest[3]]).softmax(dim=0)[1].flatten()
    torch.testing.assert_close(raw.logits[0, : len(scores)].sigmoid(), scores)
    coarse = maps[5][0].softmax(dim=0)[1].flatten()
    torch.testing.assert_close(raw.logits[0, -1:].sigmoid(), coarse)


def test_offsets_run_row_by_row_level_by_level():
    detector = build(eresfd.naver(), seed=3).eval()
    maps = [torch.zeros(1, 2, size, size) for size in (3, 2, 1, 1, 1, 1)]
    maps += [torch.zeros(1, 4, size, size) for size in (3, 2, 1, 1, 1, 1)]
    maps[6][0, 2, 1, 0] = 7.0
    maps[7][0, 3, 1, 1] = 9.0
    offsets = detector.read(tuple(maps)).offsets[0]
    assert offsets[3, 2] == 7.0
    assert offsets[9 + 3, 3] == 9.0
    assert offsets.abs().sum() == 16.0


@pytest.mark.parametrize("variant", ["naver", "bfpgm"])
def test_the_fusion_weights_learn(variant):
    """The published network divides them in place, which autograd refuses."""
    detector = build(VARIANTS[variant](), seed=0).train()
    raw = detector(torch.randn(2, 3, 256, 256) * 50)
    (raw.logits.square().mean() + raw.offsets.square().mean()).backward()
    gradient = detector.base.m0.fpn.w1.grad
    # Every weight moves, save those of the legacy pyramid's top, which mixes a map with itself.
    still = (gradient == 0).all(dim=0).nonzero().flatten().tolist()
    assert still in ([], [4])


@pytest.mark.parametrize("width", [4, 5, 12, 24])
def test_any_width_builds_and_predicts(width):
    detector = build(eresfd.naver(width=width), seed=0).eval()
    with torch.inference_mode():
        raw = detector(torch.zeros(1, 3, 64, 64))
    assert raw.logits.shape == (1, detector.spec.anchors.count(64, 64))


@pytest.mark.parametrize("options", [{"width": 3}, {"stem": 0}, {"withd": 16}, {"width": "wide"}])
def test_senseless_options_are_refused(options):
    spec = eresfd.naver()
    architecture = spec.architecture.model_copy(
        update={"options": {**spec.architecture.options, **options}}
    )
    with pytest.raises(RecipeError):
        build(spec.model_copy(update={"architecture": architecture}))


def test_equal_seeds_build_equal_detectors_and_leave_torch_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = build(eresfd.naver(), seed=1), build(eresfd.naver(), seed=1)
    assert torch.equal(torch.rand(3), expected)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.data
@pytest.mark.parametrize("name", ["eresfd", "eresfd-lfdp", "eresfd-bfpgm-30"])
def test_published_weights_say_what_they_said(name, weights_root, monkeypatch):
    """Frozen sums; written from the first version whose detections were scored."""
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    detector = zoo.load(name)
    picture = (np.arange(3 * 160 * 224).reshape(1, 3, 160, 224) * 37 % 251).astype(np.uint8)
    with torch.inference_mode():
        raw = detector(detector.prepare(torch.from_numpy(picture)))
    expected = json.loads(GOLDEN.read_text())[name]
    assert float(raw.logits.sum()) == pytest.approx(expected["logits_sum"], rel=1e-4)
    assert float(raw.logits.max()) == pytest.approx(expected["logits_max"], rel=1e-3)
    assert float(raw.offsets.abs().sum()) == pytest.approx(expected["offsets_sum"], rel=1e-4)
