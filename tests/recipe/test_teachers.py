from pathlib import Path

import pytest

from slimface.errors import RecipeError
from slimface.recipe.recipe import Recipe
from slimface.recipe.teachers import fingerprints, found


def step(teacher: str) -> object:
    criterion = {"kind": "distill", "teacher": teacher, "of": {"kind": "multibox"}}
    train = {"kind": "train", "schedule": {"epochs": 1}, "criterion": criterion}
    recipe = {"name": "x", "steps": [train]}
    return Recipe.parse(recipe, where="test").steps[0]


def test_a_step_of_the_recipe_becomes_its_checkpoint() -> None:
    models = [Path("start.safetensors"), Path("one.safetensors")]
    ready = found(step("step:1"), models)  # type: ignore[type-var]
    assert ready.criterion.teacher == "one.safetensors"  # type: ignore[attr-defined]
    kept = step("eresfd")
    assert found(kept, models) is kept  # type: ignore[type-var]


def test_a_later_step_is_no_teacher() -> None:
    with pytest.raises(RecipeError, match="step:0"):
        found(step("step:1"), [Path("start.safetensors")])  # type: ignore[type-var]


def test_the_content_of_a_teacher_is_part_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"one")
    first = fingerprints(step(str(path)))  # type: ignore[arg-type]
    path.write_bytes(b"other")
    assert fingerprints(step(str(path))) != first  # type: ignore[arg-type]
    assert fingerprints(step("eresfd")) == []  # type: ignore[arg-type]
