"""Recipes with little to do: the same steps, carried out on real pictures."""

from pathlib import Path

import pytest

from slimface.model.checkpoint import load_checkpoint
from slimface.recipe.recipe import Recipe
from slimface.recipe.rehearsal import PICTURES, rehearsal
from slimface.recipe.run import run
from slimface.recipe.shipped import open_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_rehearsal_has_the_same_steps_and_little_to_do(name: str) -> None:
    recipe = open_recipe(Path(name))
    short = rehearsal(recipe)
    assert [step.kind for step in short.steps] == [step.kind for step in recipe.steps]
    assert short.model == recipe.model and short.name != recipe.name
    assert getattr(short.source, "limit", PICTURES) == PICTURES
    text = short.model_dump_json()
    assert '"epochs":50' not in text and '"guided":40' not in text


def test_what_is_small_already_stays() -> None:
    data = {"name": "x", "steps": [{"kind": "train", "schedule": {"epochs": 1, "batch_size": 2}}]}
    schedule = rehearsal(Recipe.parse(data, where="x")).steps[0].schedule  # type: ignore[union-attr]
    assert (schedule.epochs, schedule.batch_size) == (1, 2)


@pytest.mark.data
@pytest.mark.slow
def test_a_recipe_is_rehearsed_on_real_pictures(
    wider_root: Path, weights_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFACE_WIDER", str(wider_root))
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    recipe = rehearsal(open_recipe(Path("eresfd-oneshot-30")))
    done = run(recipe, tmp_path, workers=0)
    assert [step.step.kind for step in done] == [step.kind for step in recipe.steps]
    before, after = (
        sum(p.numel() for p in load_checkpoint(path / "model.safetensors").detector.parameters())
        for path in (next((tmp_path / "steps").glob("00-*")), tmp_path)
    )
    assert after < before
