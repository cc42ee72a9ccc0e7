"""EXTD: published facts, one stage used six times, weights and real pictures."""

import pytest
import torch

from slimface.core.spec import Architecture
from slimface.errors import CheckpointError, RecipeError
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.model.extd import extd
from slimface.model.profile import profile
from tests.model.real_faces import assert_faces_are_found

FACTS = [(64, 162_352, 10_058_771_200, 164), (48, 100_160, None, 164), (32, 62_939, None, 213)]


@pytest.fixture(scope="module", params=[64, 48, 32])
def detector(request: pytest.FixtureRequest) -> Detector:
    return build(extd(width=request.param), seed=0)


@pytest.mark.parametrize(("width", "parameters", "macs", "tensors"), FACTS)
def test_the_published_facts_hold(
    width: int, parameters: int, macs: int | None, tensors: int
) -> None:
    built = build(extd(width=width), seed=0)
    cost = profile(built, 480, 640)
    assert cost.parameters == parameters
    assert macs is None or cost.macs == macs
    assert len(built.state_dict()) == tensors
    assert built.spec.anchors.count(640, 640) == 34_125


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 130), (5, 3)])
def test_every_size_gives_one_prediction_an_anchor(
    detector: Detector, height: int, width: int
) -> None:
    with torch.inference_mode():
        raw = detector.eval()(torch.zeros(2, 3, height, width))
    anchors = detector.spec.anchors.count(height, width)
    assert raw.logits.shape == (2, anchors)
    assert raw.offsets.shape == (2, anchors, 4)
    assert raw.landmarks is None


def test_training_reaches_every_parameter_and_counts_the_stage_six_times() -> None:
    built = build(extd(width=32), seed=0).train()
    raw = built(torch.randn(2, 3, 64, 64))
    (raw.logits.square().mean() + raw.offsets.square().mean()).backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []
    assert built.get_buffer("base.1.conv.1.num_batches_tracked") == 1
    assert built.get_buffer("base.2.conv.1.num_batches_tracked") == 6


def test_the_strongest_of_three_backgrounds_counts_on_the_finest_level(detector: Detector) -> None:
    maps = [torch.zeros(1, 4, 1, 1), *[torch.zeros(1, 2, 1, 1)] * 5, *[torch.zeros(1, 4, 1, 1)] * 6]
    maps[0] = torch.tensor([1.0, 3.0, 2.0, 5.0]).view(1, 4, 1, 1)
    maps[1] = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert detector.read(tuple(maps)).logits.tolist() == [[2, 2, 0, 0, 0, 0]]


def test_the_shared_stage_is_one_group() -> None:
    groups = {group.name: group for group in channel_groups(build(extd(width=64), seed=0))}
    stage = groups["base.0.0"]
    assert stage.size == 64 and stage.prunable
    members = {(member.module, member.side) for member in stage.members}
    written = {f"base.{i}.conv.6" for i in (2, 3, 4, 5)} | {f"upfeat.{i}.1" for i in range(5)}
    assert {(name, "out") for name in written} <= members
    assert {(f"conf.{i}", "in") for i in range(6)} <= members


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"depth": 3}, "no option depth"),
        ({"width": 0}, "width 0"),
        ({"stem": "8"}, "stem '8'"),
        ({"expansions": ()}, r"expansions \(\)"),
        ({"expansions": (2, 0)}, r"expansions \(2, 0\)"),
    ],
)
def test_wrong_options_are_named(options: dict, complaint: str) -> None:
    spec = extd().model_copy(update={"architecture": Architecture(name="extd", options=options)})
    with pytest.raises(RecipeError, match=complaint):
        build(spec)


@pytest.mark.data
@pytest.mark.parametrize("width", [64, 48, 32])
def test_published_weights_load_strictly_and_find_faces(
    published_weights: None, wider_root, width: int
) -> None:
    found = zoo.load(f"extd-{width}")
    assert_faces_are_found(found, wider_root)


@pytest.mark.data
def test_weights_of_one_width_are_refused_as_another(published_weights: None, weights_root) -> None:
    with pytest.raises(CheckpointError, match=r"extd-48|other"):
        zoo.import_weights(weights_root / "extd" / "EXTD_48.pth", like="extd-64")
    with pytest.raises(CheckpointError):
        zoo.import_weights(weights_root / "extd" / "EXTD_32.pth", like="eresfd")
