"""Backbones: published sizes, maps of three strides, names of timm's, ImageNet weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slimface.errors import CheckpointError, MissingError, RecipeError
from slimface.model.backbones import build_backbone
from slimface.model.backbones.pretrained import load_pretrained_

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

FACTS = [
    ("mobilenet025", 213_072, 162),
    ("resnet50", 23_508_032, 318),
    ("ghostnet", 2_897_880, 538),
    ("mobilenetv3", 1_843_400, 384),
]
SMALL = ("mobilenet025", "ghostnet", "mobilenetv3", "mobilenetv4_conv_small_035", "resnet10t")


@pytest.mark.parametrize(("name", "parameters", "tensors"), FACTS)
def test_the_published_sizes_hold(name: str, parameters: int, tensors: int) -> None:
    backbone = build_backbone(name)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert len(backbone.state_dict()) == tensors


@pytest.mark.parametrize("name", SMALL)
def test_maps_have_the_strides_8_16_and_32(name: str) -> None:
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(2, 3, 64, 96))
    sizes = [(8, 12), (4, 6), (2, 3)]
    expected = [(2, c, *size) for c, size in zip(backbone.channels, sizes, strict=True)]
    assert [tuple(level.shape) for level in maps] == expected


@pytest.mark.parametrize("name", ["mobilenet025", "ghostnet", "mobilenetv3"])
def test_published_backbones_round_sizes_up(name: str) -> None:
    with torch.inference_mode():
        maps = build_backbone(name).eval()(torch.zeros(1, 3, 65, 33))
    assert [tuple(level.shape[2:]) for level in maps] == [(9, 5), (5, 3), (3, 2)]


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_training_reaches_every_parameter(name: str) -> None:
    backbone = build_backbone(name).train()
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []


def test_keys_are_those_of_the_publishers() -> None:
    resnet = torchvision.models.resnet50().state_dict()
    ours = build_backbone("resnet50").state_dict()
    assert {key for key in resnet if not key.startswith("fc.")} == set(ours)
    ghost = build_backbone("ghostnet").state_dict()
    assert "blocks1.2.0.se.conv_reduce.bias" in ghost
    assert "blocks2.1.4.ghost2.cheap_operation.0.weight" in ghost
    assert "blocks3.0.0.shortcut.3.running_mean" in ghost
    assert "bneck1.3.se.se.2.weight" in build_backbone("mobilenetv3").state_dict()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"(?s)'mobilnetv4_conv_small'.*mobilenetv4_conv_small"):
        build_backbone("mobilnetv4_conv_small")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("vit_tiny_patch16_224", "strides 16, 16, 16; RetinaFace needs 8, 16 and 32"),
        ("swin_tiny_patch4_window7_224", "cannot be fed a picture of 128x64"),
    ],
)
def test_a_backbone_without_three_maps_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        build_backbone(name)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small_035", "convnext_atto"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_classifier_of_timm_gives_its_weights(tmp_path: Path, name: str, suffix: str) -> None:
    classifier = timm.create_model(name, pretrained=False).eval()
    path = tmp_path / f"classifier{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": classifier.state_dict()}, path)
    else:
        save_file(classifier.state_dict(), path)
    backbone = build_backbone(name).eval()
    load_pretrained_(backbone, path)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = classifier.forward_intermediates(images, intermediates_only=True)
        found = backbone(images)
    # Where timm ends a stage with another norm than its features do, the finest map decides.
    assert any(
        level.shape == found[0].shape and torch.allclose(level, found[0], atol=1e-5)
        for level in expected
    )


def test_a_classifier_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"(?s)MobileNet025.*missing.*unknown"):
        load_pretrained_(build_backbone("mobilenet025"), path)
    with pytest.raises(CheckpointError, match="missing"):
        load_pretrained_(build_backbone("mobilenetv4_conv_small_035"), path)


def test_weights_nobody_publishes_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIMFACE_OFFLINE", raising=False)
    with pytest.raises(MissingError, match="No ImageNet weights of GhostNet"):
        load_pretrained_(build_backbone("ghostnet"))


def test_offline_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    with pytest.raises(MissingError, match="SLIMFACE_OFFLINE"):
        load_pretrained_(build_backbone("resnet10t"))


@pytest.mark.data
def test_the_published_imagenet_weights_of_mobilenet025_load(weights_root: Path) -> None:
    path = weights_root / "retinaface" / "mobilenetV1X0.25_pretrain.tar"
    backbone = build_backbone("mobilenet025")
    load_pretrained_(backbone, path)
    published = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, published[f"module.{name}"])
