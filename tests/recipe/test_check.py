"""Whether recipes are refused before anything runs, by the real steps' own terms."""

from pathlib import Path
from typing import Any, get_args

import pytest

from slimface.errors import MissingError, RecipeError, SlimfaceError, UsageError
from slimface.model.build import build
from slimface.model.checkpoint import save
from slimface.recipe.check import check
from slimface.recipe.classes import classifier_spec
from slimface.recipe.recipe import AnyStep, Recipe
from slimface.recipe.run import run
from slimface.recipe.shipped import open_recipe, shipped_recipes

TRAIN: dict[str, Any] = {"kind": "train", "schedule": {"epochs": 1}}
CLASSES: dict[str, Any] = {
    **TRAIN, "criterion": {"kind": "cross_entropy"}, "augment": {"kind": "crop_flip"},
}  # fmt: skip
PRUNE: dict[str, Any] = {"kind": "prune", "allocator": {"rate": 0.3}}
NET: dict[str, Any] = {"kind": "train_net", "net": "pnet", "schedule": {"epochs": 1}}
SOFT: dict[str, Any] = {"kind": "soft_prune", "train": TRAIN, "prune": PRUNE, "end": "zero"}
QAT: dict[str, Any] = {"kind": "qat", "train": TRAIN}
SHRINK: dict[str, Any] = {"kind": "shrink"}
DRAWN: dict[str, Any] = {"source": {"kind": "drawn_breeds"}, "model": "classifier:resnet18@64"}


def recipe(*steps: Any, **fields: Any) -> Recipe:
    return Recipe.parse({"name": "x", "steps": steps, **fields}, where="x")


def taught(teacher: str) -> dict[str, Any]:
    return {**TRAIN, "criterion": {"kind": "distill", "teacher": teacher}}


@pytest.mark.parametrize("step", get_args(get_args(AnyStep)[0]))
def test_every_step_says_what_it_needs_and_leaves(step: Any) -> None:
    assert callable(getattr(step, "terms", None)), "see slimface.order"


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_in_order(name: str) -> None:
    check(open_recipe(Path(name)), teachers_open=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (recipe(PRUNE, pretrained=False), "weights are random"),
        (recipe(PRUNE, TRAIN, pretrained=False), r"Move step 1 behind step 2 \(train\)"),
        (recipe({"kind": "benchmark"}), "Put an export step before it"),
        (recipe({"kind": "evaluate", "of": "file"}), "no step before it exports"),
        (
            recipe({"kind": "export"}, PRUNE, {"kind": "benchmark"}),
            r"step 2 \(prune\) has made another model",
        ),
        (recipe(TRAIN, SHRINK, pretrained=False), "nothing before it makes any zero"),
        (recipe(SOFT, TRAIN, SHRINK), "Move step 3 before step 2"),
        (recipe(SOFT, SHRINK, SHRINK), "Leave step 2"),
        (recipe(TRAIN, {"kind": "reinit"}, PRUNE), r"step 2 \(reinit\) has made them random"),
        (recipe(QAT, PRUNE), r"tied them to whole numbers.\nMove step 2 before step 1"),
        (recipe(QAT, PRUNE, TRAIN), r"Move step 1 behind step 3 \(train\)"),
        (recipe(QAT, TRAIN, QAT), r"Move step 1 behind step 3 \(qat\)"),
        (recipe(QAT, QAT), "Leave step 1"),
        (recipe({"kind": "quantize"}, PRUNE, TRAIN), r"Move step 1 behind step 3 \(train\)"),
        (recipe(NET), "Step 1 .train_net. is for cascade, and eresfd does detection"),
        (recipe(TRAIN, model="mtcnn"), "is for classification and detection, and mtcnn does"),
        (recipe(CLASSES, model="classifier:resnet18"), "needs pictures with classes"),
        (recipe(TRAIN, source={"kind": "drawn_breeds"}), "needs pictures with faces"),
        (recipe({"kind": "b_fpgm"}, **DRAWN), "is for detection"),
        (recipe(taught("step:1")), "Step 1 .train. learns from step:1, which is no step before"),
        (recipe(TRAIN, taught("step:7")), r"step:0 \(the start\) to step:1"),
    ],
)
def test_what_makes_no_sense_is_refused(given: Recipe, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        check(given)


@pytest.mark.parametrize(
    "given",
    [
        recipe(SHRINK),  # published weights may be masked
        recipe(SOFT, SHRINK, TRAIN, pretrained=False),
        recipe({**PRUNE, "importance": {"kind": "random"}}, TRAIN, pretrained=False),
        recipe(NET, model="mtcnn", pretrained=False),
        recipe(TRAIN, taught("step:0"), taught("step:1")),
        recipe(CLASSES, PRUNE, pretrained=False, **DRAWN),
    ],
)
def test_what_makes_sense_passes(given: Recipe) -> None:
    check(given)


def classifier_file(folder: Path) -> Path:
    path = folder / "classifier.safetensors"
    save(build(classifier_spec("classifier:resnet10t@32", ("a", "b")), seed=0), path)
    return path


def test_a_teacher_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot teach eresfd"):
        check(recipe(taught(str(classifier_file(tmp_path)))))
    with pytest.raises(SlimfaceError, match="nobody"):
        check(recipe(taught("nobody")))
    with pytest.raises(MissingError):
        check(recipe(taught(str(tmp_path / "none.safetensors"))))


def test_nothing_is_made_where_the_order_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="export step"):
        run(recipe({"kind": "benchmark"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
