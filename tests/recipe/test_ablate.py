"""A recipe without each of its steps: which can go, what is shared, and what the card says."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.recipe.ablate import ablate, variants, without
from slimface.recipe.recipe import Recipe
from slimface.report.card import write_card

CLASSES: dict[str, Any] = {
    "kind": "train", "criterion": {"kind": "cross_entropy"}, "augment": {"kind": "crop_flip"},
    "holdout": 0, "schedule": {"epochs": 1, "batch_size": 8},
}  # fmt: skip
PRUNE = {"kind": "prune", "allocator": {"rate": 0.4}, "height_px": 32, "width_px": 32}
SOURCE = {"kind": "drawn_breeds", "classes": 2, "train": 8, "val": 2, "test": 4, "size_px": 32}


def taught(teacher: str) -> dict[str, Any]:
    return {**CLASSES, "criterion": {"kind": "distill", "teacher": teacher,
                                     "of": {"kind": "cross_entropy"}}}  # fmt: skip


def recipe(*steps: Any) -> Recipe:
    data = {"name": "small", "model": "classifier:resnet10t@32", "pretrained": False,
            "source": SOURCE, "steps": steps}  # fmt: skip
    return Recipe.parse(data, where="small")


WHOLE = recipe(CLASSES, {"kind": "evaluate"}, PRUNE, taught("step:1"), {"kind": "evaluate"})


def test_teachers_are_numbered_anew() -> None:
    long = recipe(CLASSES, PRUNE, taught("step:1"), taught("step:3"), taught("step:2"))
    data = without(long, 2).model_dump(mode="json")
    named = [step["criterion"].get("teacher") for step in data["steps"][1:]]
    # What learnt from the step that is gone learns from the one before it.
    assert named == ["step:1", "step:2", "step:1"]


def test_steps_that_only_measure_stay_and_steps_that_are_needed_are_said() -> None:
    found = {one.number: one for one in variants(WHOLE)}
    assert list(found) == [1, 3, 4]
    assert found[1].recipe is None and "Step 2 (prune) goes by" in found[1].reason
    assert [step.kind for step in found[3].recipe.steps] == [  # type: ignore[union-attr]
        "train", "evaluate", "train", "evaluate",
    ]  # fmt: skip


def test_what_ships_can_be_left_out_as_well() -> None:
    file = {"kind": "evaluate", "of": "file"}
    written = recipe(CLASSES, {"kind": "export"}, {"kind": "quantize"}, file)
    assert [(one.number, one.recipe is None) for one in variants(written)] == [
        (1, True), (3, False),
    ]  # fmt: skip
    # Without an export there is no other file to measure.
    alone = list(variants(recipe(CLASSES, {"kind": "quantize"}, file)))[-1]
    assert alone.recipe is None and "no step before it exports" in alone.reason


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("ablated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(folder / "home"))
        return folder / "run", list(ablate(WHOLE, folder / "run", workers=0))


def test_what_comes_before_the_step_is_not_repeated(done: tuple[Path, list[Any]]) -> None:
    folder, rows = done
    kinds = sorted(place.name[3:-13] for place in (folder / "steps").iterdir())
    # Five of the whole; two behind the cut that is left out; one behind the training that is.
    assert kinds.count("train") == 2 + 1 and kinds.count("prune") == 1
    assert kinds.count("evaluate") == 2 + 1 + 1
    assert [row.without for row in rows] == [0, 1, 3, 4]


def test_each_row_says_what_the_model_comes_to(done: tuple[Path, list[Any]]) -> None:
    whole, needed, uncut, untaught = done[1]
    assert uncut.parameters > 2 * whole.parameters and uncut.macs > 2 * whole.macs
    assert untaught.parameters == whole.parameters
    assert whole.score["name"] == "top-1" and untaught.score["stamp"] == whole.score["stamp"]
    assert needed.reason and needed.parameters is None


def test_the_card_has_the_table(done: tuple[Path, list[Any]]) -> None:
    page = write_card(done[0]).read_text()
    for words in ("Without each step", "without step 3: prune", "cannot be left out",
                  "What each step took and bought", "not measured"):  # fmt: skip
        assert words in page


def test_the_shell_repeats_nothing_and_writes_json(
    done: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = done
    monkeypatch.setenv("SLIMFACE_HOME", str(folder.parent / "home"))
    before = sorted((folder / "steps").rglob("done.json"))
    given = ["run", str(folder / "recipe.yaml"), "--out", str(folder), "--ablate", "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)["ablation"]
    assert [row["parameters"] for row in table] == [row.parameters for row in rows]
    assert sorted((folder / "steps").rglob("done.json")) == before
