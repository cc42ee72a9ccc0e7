"""The recipes that come with slimface: each makes sense, says what it is, and can be planned."""

from pathlib import Path

import pytest
import yaml

from slimface.errors import RecipeError
from slimface.recipe.plan import plan
from slimface.recipe.recipe import Recipe, write_recipe
from slimface.recipe.shipped import open_recipe, recipes_in, shipped_recipes

SHIPPED = shipped_recipes()

FAMILY = """
family: {rule: [fpgm, l1], percent: [10, 25]}
name: try-$rule-$percent
model: eresfd
steps:
  - kind: prune
    importance: {kind: $rule}
    allocator: {rate: 0.$percent}
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_makes_sense_and_says_what_it_is_for(name: str) -> None:
    recipe = open_recipe(Path(name))
    assert recipe.name == name
    assert recipe.about
    assert not recipe.reproduces or (recipe.differs and recipe.takes)
    first = SHIPPED[name].path.read_text().splitlines()[0]
    assert first.startswith("# "), "a shipped recipe opens with what it reproduces"
    assert recipe == Recipe.parse(yaml.safe_load(write_recipe(recipe)), where=name)


def test_every_published_system_has_its_recipes() -> None:
    uniform = {
        f"{family}-{rule}-{rate}"
        for family in ("eresfd", "extd")
        for rule in ("fpgm", "l1")
        for rate in range(10, 51, 10)
    }
    searched = {f"eresfd-bfpgm-{rate}" for rate in range(10, 61, 10)} | {"extd-bfpgm-20"}
    cascade = {"mtcnn-taylor-50", "mtcnn-taylor-50-reinit"}
    assert uniform | searched | cascade <= set(SHIPPED)


def first_of_each_file() -> list[str]:
    return list({one.path: one.name for one in reversed(SHIPPED.values())}.values())


@pytest.mark.parametrize("name", first_of_each_file())
def test_every_file_of_recipes_can_be_planned(name: str) -> None:
    recipe = open_recipe(Path(name))
    lines = plan(recipe)
    assert [line.kind for line in lines] == ["start", *(step.kind for step in recipe.steps)]
    assert lines[-1].parameters <= lines[0].parameters
    assert lines[-1].macs <= lines[0].macs


def test_more_is_planned_to_go_at_higher_rates() -> None:
    ends = [plan(open_recipe(Path(f"eresfd-fpgm-{rate}")))[-1] for rate in (10, 30, 50)]
    macs = [end.macs for end in ends]
    assert macs == sorted(macs, reverse=True) and len(set(macs)) == 3


def test_a_family_is_one_recipe_for_each_combination(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(FAMILY)
    found = recipes_in(path)
    assert [one.name for one in found] == ["try-fpgm-10", "try-fpgm-25", "try-l1-10", "try-l1-25"]
    assert found[3].data["steps"][0]["allocator"] == {"rate": 0.25}
    assert found[3].data["steps"][0]["importance"] == {"kind": "l1"}


def test_a_family_as_a_whole_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(FAMILY)
    with pytest.raises(RecipeError, match=r"family of 4 recipes.*\n.*try-l1-25"):
        open_recipe(path)


@pytest.mark.parametrize("wrong", ["family: 3", "family: {rule: 1}", "family: [a]", "family: {}"])
def test_a_family_that_cannot_be_filled_in_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(FAMILY.replace("family: {rule: [fpgm, l1], percent: [10, 25]}", wrong))
    with pytest.raises(RecipeError, match="cannot be filled in"):
        recipes_in(path)


def test_a_recipe_may_go_on_where_another_ends(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("name: more\nafter: demo\nsteps: [{kind: reinit}]\n")
    demo, more = open_recipe(Path("demo")), open_recipe(path, ["seed=3"])
    assert more.steps[:-1] == demo.steps and more.steps[-1].kind == "reinit"
    assert more.model == demo.model and more.name == "more" and more.seed == 3


def test_a_recipe_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'demo'"):
        open_recipe(Path("dmo"))
