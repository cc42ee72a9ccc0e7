"""Shipped: the recipes that come with slimface, a file for each or for a whole family.

A family is a recipe with parameters: ``family: {percent: [10, 20]}`` at its head, and ``$percent``
wherever a value stands. Each combination is a recipe of its own name. A recipe with ``after: NAME``
goes on where the recipe of that name ends.
"""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import slimface
from slimface.errors import RecipeError
from slimface.recipe.recipe import FAMILY, Recipe, override, read_text, read_yaml


@dataclass(frozen=True, slots=True)
class Shipped:
    """A recipe that comes with slimface."""

    name: str
    path: Path
    data: Mapping[str, Any]
    """What its file says, the family's parameters filled in."""


def shipped_recipes() -> dict[str, Shipped]:
    """Return the shipped recipes by name, those of a family in the order of its parameters."""
    package = Path(slimface.__file__).parent
    # In a wheel they lie inside the package, in a checkout beside it.
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        if folder.is_dir():
            found = [one for path in sorted(folder.glob("*.yaml")) for one in recipes_in(path)]
            return {one.name: one for one in found}
    return {}


def recipes_in(path: Path) -> list[Shipped]:
    """Return all recipes of a file.

    Raises:
        RecipeError: It cannot be read, or its family's parameters make no sense.
    """
    text = read_text(path)
    family = read_yaml(text, where=str(path)).get(FAMILY, {})
    try:
        choices = [[(name, str(value)) for value in values] for name, values in family.items()]
        texts = [Template(text).substitute(dict(each)) for each in itertools.product(*choices)]
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise RecipeError(
            f"{path}: the family cannot be filled in ({type(error).__name__}: {error}).\n"
            "Write it like family: {percent: [10, 20]}, and each parameter like $percent."
        ) from None
    found = []
    for each in texts:
        data = read_yaml(each, where=str(path))
        data.pop(FAMILY, None)
        found.append(Shipped(str(data.get("name", path.stem)), path, data))
    return found


def open_recipe(name: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read what a user means: a file, or the name of a shipped recipe.

    Args:
        name: Path or name.
        overrides: Like ``steps.1.allocator.rate=0.4``: changes on top of the file.

    Raises:
        RecipeError: There is neither, or it breaks a rule; every mistake is named.
    """
    found, where = _data(name)
    data = dict(found)
    if "after" in data:
        before, _ = _data(Path(str(data.pop("after"))))
        data = {**before, **data, "steps": [*before["steps"], *data.get("steps", ())]}
    for change in overrides:
        override(data, change)
    return Recipe.parse(data, where=where)


def _data(name: Path) -> tuple[Mapping[str, Any], str]:
    """Return the content of a recipe, not checked yet, and where it stands."""
    if name.is_file():
        found = recipes_in(name)
        if len(found) > 1:
            raise RecipeError(
                f"{name} is a family of {len(found)} recipes.\n"
                f"Run one by its name: {', '.join(one.name for one in found)}."
            )
        return found[0].data, str(name)
    recipes = shipped_recipes()
    if name.stem in recipes:
        return recipes[name.stem].data, name.stem
    near = difflib.get_close_matches(name.stem, recipes, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise RecipeError(f"There is no recipe {name}.{hint}\n`slimface run --list` shows them all.")
