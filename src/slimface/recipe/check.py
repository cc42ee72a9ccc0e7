"""Check: whether the steps of a recipe make sense in their order, before anything runs."""

from pathlib import Path

from slimface import order
from slimface.core.spec import ModelSpec
from slimface.data.folders import ClassSource
from slimface.errors import RecipeError
from slimface.loading import CHECKPOINT
from slimface.order import LEARNT, ZEROED, Placed, States
from slimface.recipe import teachers
from slimface.recipe.classes import is_classifier
from slimface.recipe.recipe import Recipe
from slimface.recipe.start import spec_of
from slimface.train.teacher import check_specs


def check(recipe: Recipe, *, teachers_open: bool = True) -> None:
    """Refuse steps that cannot work together, or not on this model; read no picture.

    Args:
        recipe: What is to be done.
        teachers_open: Look into the teachers' files, which must be there then.

    Raises:
        RecipeError: A step stands in the wrong place, is for models of another task, or learns
            from a step that does not come before it.
        UsageError: A teacher has nothing to say to the model.
        MissingError, CheckpointError: The model or a teacher cannot be opened.
    """
    spec = spec_of(recipe.model)
    steps = placed(recipe)
    for step in steps:
        if spec.task not in step.terms.tasks:
            tasks = " and ".join(sorted(step.terms.tasks))
            raise RecipeError(
                f"S{str(step)[1:]} is for {tasks}, and {recipe.model} does {spec.task}.\n"
                "Leave the step out, or name another model."
            )
    if (spec.task == "classification") != isinstance(recipe.source, ClassSource):
        wanted = (
            "classes (pets, folders, drawn_breeds)" if spec.task == "classification" else "faces"
        )
        raise RecipeError(
            f"{recipe.model} does {spec.task} and needs pictures with {wanted}, and the source "
            f"{recipe.source.kind} has others.\nName another source, or another model."
        )
    order.check(steps, at_first(recipe))
    _check_teachers(recipe, spec if teachers_open else None)


def placed(recipe: Recipe) -> list[Placed]:
    """Return the steps in their places."""
    return [Placed(i, step.kind, step.terms()) for i, step in enumerate(recipe.steps, start=1)]


def at_first(recipe: Recipe) -> States:
    """Return what is, or may be, true of the model a recipe starts from."""
    if recipe.pretrained or Path(recipe.model).suffix == CHECKPOINT:
        # Published weights and checkpoints may be masked; only the weights themselves tell.
        return order.AT_FIRST | {LEARNT, ZEROED}
    return order.AT_FIRST


def _check_teachers(recipe: Recipe, spec: ModelSpec | None) -> None:
    for step, place in zip(recipe.steps, placed(recipe), strict=True):
        for name in teachers.names(step):
            number = teachers.number_of(name)
            if number is not None and number >= place.number:
                raise RecipeError(
                    f"S{str(place)[1:]} learns from {name}, which is no step before it.\n"
                    f"Name step:0 (the start) to step:{place.number - 1}."
                )
            if number is None and spec is not None:
                check_specs(spec, spec_of(name), classes=not is_classifier(recipe.model))
