"""RetinaFace: published facts, the order of anchors and channels, weights and real pictures."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.core.spec import Architecture
from slimface.errors import CheckpointError, MissingError, RecipeError, UsageError
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.model.retinaface import retinaface
from slimface.model.surgery import remove_channels, silence_
from tests.model.drawn_detector import live_in_
from tests.model.real_faces import assert_faces_are_found

timm = pytest.importorskip("timm")

FACTS = [
    ("mobilenet025", 426_608, 300, 0.981),
    ("resnet50", 27_293_600, 456, 44.26),
    ("ghostnet", 3_111_416, 676, 1.987),
    ("mobilenetv3", 2_056_936, 522, 3.256),
]


def small(backbone: str = "mobilenet025") -> Detector:
    return build(retinaface(backbone=backbone), seed=0)


@pytest.mark.parametrize(("backbone", "parameters", "tensors", "giga_macs"), FACTS)
def test_the_published_facts_hold(
    backbone: str, parameters: int, tensors: int, giga_macs: float
) -> None:
    built = small(backbone)
    cost = profile(built, 640, 640)
    assert cost.parameters == parameters
    assert cost.macs / 1e9 == pytest.approx(giga_macs, rel=5e-4)
    assert len(built.state_dict()) == tensors
    assert built.spec.anchors.count(640, 640) == 16_800


@pytest.mark.parametrize("backbone", ["mobilenet025", "ghostnet", "mobilenetv3"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 33)])
def test_every_size_gives_one_prediction_an_anchor(backbone: str, height: int, width: int) -> None:
    built = small(backbone).eval()
    with torch.inference_mode():
        raw = built(torch.zeros(2, 3, height, width))
    anchors = built.spec.anchors.count(height, width)
    assert raw.logits.shape == (2, anchors)
    assert raw.offsets.shape == (2, anchors, 4)
    assert raw.landmarks is not None and raw.landmarks.shape == (2, anchors, 5, 2)


@pytest.mark.parametrize("backbone", ["mobilenetv4_conv_small_035", "resnet10t"])
def test_any_backbone_of_timm_will_do(backbone: str) -> None:
    built = build(zoo.entry(f"retinaface:{backbone}").spec, seed=0).train()
    raw = built(torch.randn(2, 3, 64, 96))
    assert raw.logits.shape == (2, built.spec.anchors.count(64, 96))
    assert built.spec.preprocess.multiple_of == 32
    assert built.spec.preprocess.colour == "rgb"
    total = sum(part.square().mean() for part in raw if part is not None)
    total.backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("backbone", ["mobilenet025", "ghostnet", "mobilenetv3"])
def test_training_reaches_every_parameter(backbone: str) -> None:
    built = small(backbone).train()
    raw = built(torch.randn(2, 3, 64, 64))
    sum(part.square().mean() for part in raw if part is not None).backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


def test_channels_of_a_cell_are_anchor_after_anchor() -> None:
    """Against plain loops: rows, columns, anchors of a cell, values of an anchor."""
    built = small()
    sizes = [(2, 3), (1, 2), (1, 1)]
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(1, 2 * values, h, w, generator=generator)
        for values in (2, 4, 10)
        for h, w in sizes
    ]
    raw = built.read(tuple(maps))
    i = 0
    for level, (h, w) in enumerate(sizes):
        classes, offsets, points = maps[level], maps[level + 3], maps[level + 6]
        for y in range(h):
            for x in range(w):
                for a in range(2):
                    background, face = classes[0, 2 * a : 2 * a + 2, y, x]
                    assert raw.logits[0, i] == face - background
                    assert torch.equal(raw.offsets[0, i], offsets[0, 4 * a : 4 * a + 4, y, x])
                    mine = points[0, 10 * a : 10 * a + 10, y, x].view(5, 2)
                    assert torch.equal(raw.landmarks[0, i], mine)
                    i += 1
    assert i == raw.logits.shape[1]


def test_activations_leak_only_in_a_narrow_pyramid() -> None:
    narrow, wide = small(), build(retinaface(width=128), seed=0)
    assert narrow.get_submodule("fpn.output1.2").negative_slope == pytest.approx(0.1)
    assert narrow.get_submodule("ssh1.conv5X5_1.2").negative_slope == pytest.approx(0.1)
    assert wide.get_submodule("fpn.output1.2").negative_slope == 0
    assert wide.get_submodule("ssh1.conv5X5_1.2").negative_slope == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"depth": 3}, "no option depth"),
        ({"width": 30}, "width 30"),
        ({"backbone": 3}, "backbone 3"),
        ({"backbone": "vit_tiny_patch16_224"}, "strides 16, 16, 16"),
    ],
)
def test_wrong_options_are_named(options: dict, complaint: str) -> None:
    architecture = Architecture(name="retinaface", options=options)
    with pytest.raises(RecipeError, match=complaint):
        build(retinaface().model_copy(update={"architecture": architecture}))


def test_anchors_of_other_strides_are_refused() -> None:
    spec = retinaface()
    levels = spec.anchors.levels[:2]
    anchors = spec.anchors.model_copy(update={"levels": levels})
    with pytest.raises(RecipeError, match="8, 16 and 32; the spec has anchors for 8, 16"):
        build(spec.model_copy(update={"anchors": anchors}))


@pytest.mark.parametrize(
    "backbone", ["mobilenet025", "ghostnet", "mobilenetv3", "mobilenetv4_conv_small_035"]
)
def test_removing_channels_is_silencing_them(backbone: str) -> None:
    """In double precision, where a wrongly followed channel cannot hide behind rounding."""
    built = live_in_(small(backbone), 0)
    groups = channel_groups(built)
    rng = np.random.default_rng(0)
    keep = {
        group.name: np.sort(rng.choice(group.size, max(1, group.size // 2), replace=False))
        for group in groups
        if group.prunable
    }
    narrow = remove_channels(built, keep, groups=groups).double()
    silent = copy.deepcopy(built).double()
    silence_(silent, keep, groups=groups)
    images = 60 * torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        for one, other in zip(narrow.maps(images), silent.maps(images), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-9 * max(1, other.abs().max()))


def test_published_key_variants_are_understood(tmp_path: Path) -> None:
    state = small("ghostnet").state_dict()
    variant = {f"module.{key}".replace("module.fpn.", "module.FPN."): t for key, t in state.items()}
    torch.save(variant, tmp_path / "ghostnet_Final.pth")
    loaded = zoo.import_weights(tmp_path / "ghostnet_Final.pth", like="retinaface:ghostnet")
    assert all(torch.equal(t, state[key]) for key, t in loaded.state_dict().items())


def test_two_spellings_of_one_tensor_are_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    state["FPN.merge1.0.weight"] = state["fpn.merge1.0.weight"] + 1
    torch.save(state, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"two tensors are called fpn\.merge1\.0\.weight"):
        zoo.import_weights(tmp_path / "both.pth", like="retinaface-mobilenet025")


def test_a_part_of_the_tensors_is_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save({k: t for k, t in state.items() if not k.startswith("fpn.")}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"30 missing: fpn\."):
        zoo.import_weights(tmp_path / "part.pth", like="retinaface-mobilenet025")


@pytest.mark.parametrize("name", ["retinaface-resnet50", "retinaface:ghostnet_100"])
def test_models_nobody_has_trained_detect_nothing(name: str) -> None:
    with pytest.raises(MissingError, match=rf"(?s){name}.*slimface train"):
        zoo.load(name)


def test_a_misspelt_model_is_not_taken_for_a_backbone() -> None:
    with pytest.raises(UsageError, match="retinaface-mobilenet025"):
        zoo.entry("retinaface-mobilenet25")


@pytest.mark.data
def test_published_weights_load_strictly_and_find_faces_and_landmarks(
    published_weights: None, wider_root: Path
) -> None:
    found = assert_faces_are_found(zoo.load("retinaface-mobilenet025"), wider_root)
    points = found.landmarks
    assert points is not None
    assert (points >= found.boxes[:, None, :2]).all() and (points <= found.boxes[:, None, 2:]).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = points.transpose(1, 0, 2)
    assert (left_eye[:, 0] < right_eye[:, 0]).all()
    assert (left_mouth[:, 0] < right_mouth[:, 0]).all()
    assert (left_eye[:, 1] < nose[:, 1]).all() and (nose[:, 1] < left_mouth[:, 1]).all()


@pytest.mark.data
def test_published_weights_are_refused_with_the_anchors_of_the_1mb_variant(
    published_weights: None, weights_root: Path
) -> None:
    file = weights_root / "retinaface" / "mobilenet0.25_Final.pth"
    with pytest.raises(CheckpointError, match="other anchors"):
        zoo.import_weights(file, like="retinaface-mobilenet025-1mb")
