"""Teachers: which models the steps of a recipe learn from, and where these are."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from slimface.core.value import Value
from slimface.errors import RecipeError

V = TypeVar("V", bound=Value)

_STEP = re.compile(r"step:(\d+)")


def names(step: Value) -> list[str]:
    """Return the teachers that a step names: models, or ``step:N``."""
    return list(_named(step.model_dump(mode="json")))


def number_of(teacher: str) -> int | None:
    """Return N of ``step:N``, and None for the name of a model."""
    match = _STEP.fullmatch(teacher)
    return None if match is None else int(match[1])


def renamed(data: Any, number: Callable[[int], int]) -> Any:
    """Return what a step's settings say with its teachers ``step:N`` numbered otherwise."""

    def name(teacher: str) -> str:
        of = number_of(teacher)
        return teacher if of is None else f"step:{number(of)}"

    return _replaced(data, name)


def fingerprints(step: Value) -> list[str]:
    """Return the SHA-256 of the checkpoints that a step names as teachers.

    The name of a file says nothing about its content, and a step is only the same if its teacher
    is. Teachers that are steps of the recipe are part of what led to the step anyway.
    """
    paths = [Path(name) for name in names(step)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]


def found(step: V, models: Sequence[Path]) -> V:
    """Return a step whose teachers ``step:N`` are named by their checkpoints.

    Args:
        step: The step.
        models: Checkpoints of the start and of each step before this one.

    Raises:
        RecipeError: It names a step that does not come before it.
    """
    if all(number_of(name) is None for name in names(step)):
        return step

    def place(name: str) -> str:
        number = number_of(name)
        if number is None:
            return name
        if number >= len(models):
            raise RecipeError(
                f"The teacher {name} is no step before this one, which is step {len(models)}.\n"
                f"Name step:0 (the start) to step:{len(models) - 1}."
            )
        return str(models[number])

    return type(step).model_validate(_replaced(step.model_dump(mode="json"), place))


def _named(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "teacher" and isinstance(value, str):
                yield value
            else:
                yield from _named(value)
    elif isinstance(data, list):
        for value in data:
            yield from _named(value)


def _replaced(data: Any, place: Any) -> Any:
    if isinstance(data, dict):
        return {
            key: place(value)
            if key == "teacher" and isinstance(value, str)
            else _replaced(value, place)
            for key, value in data.items()
        }
    return [_replaced(value, place) for value in data] if isinstance(data, list) else data
