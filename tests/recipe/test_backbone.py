from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from slimface.errors import MissingError, UsageError
from slimface.model.backbones.backbone import build_backbone
from slimface.recipe.recipe import Recipe
from slimface.recipe.start import start
from slimface.train.schedule import Schedule
from slimface.train.step import Train

STEPS = (Train(schedule=Schedule(epochs=1)),)


def recipe(**fields: Any) -> Recipe:
    name = {"name": "x", "model": "retinaface-mobilenet025", "pretrained": False}
    return Recipe(**{**name, "steps": STEPS, **fields})


def test_a_file_gives_the_backbone_its_weights_and_nothing_else(tmp_path: Path) -> None:
    weights = {key: torch.rand(value.shape) for key, value in
               build_backbone("mobilenet025").state_dict().items()}  # fmt: skip
    save_file(weights, tmp_path / "imagenet.safetensors")
    given, _ = start(recipe(backbone=str(tmp_path / "imagenet.safetensors")))
    random, _ = start(recipe())
    state, other = given.state_dict(), random.state_dict()
    changed = {key for key in state if not torch.equal(state[key], other[key])}
    assert changed
    assert {key.partition(".")[0] for key in changed} == {"body"}
    key = next(iter(weights))
    assert torch.equal(state[f"body.{key}"], weights[key])


def test_what_nobody_publishes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="No ImageNet weights of MobileNet025"):
        start(recipe(backbone="published"))
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    with pytest.raises(MissingError, match="SLIMFACE_OFFLINE"):
        start(recipe(backbone="published"))


def test_a_detector_without_such_a_backbone_is_named() -> None:
    with pytest.raises(UsageError, match="eresfd"):
        start(recipe(model="eresfd", backbone="published"))


def test_trained_weights_take_none() -> None:
    with pytest.raises(UsageError, match="trained weights"):
        start(recipe(pretrained=True, backbone="published"))
