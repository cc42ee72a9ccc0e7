"""Where the recipes that come with slimface are."""

import difflib
from pathlib import Path

import slimface
from slimface.errors import RecipeError


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    package = Path(slimface.__file__).parent
    # In a wheel they lie inside the package, in a checkout beside it.
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_recipe(name: Path) -> Path:
    """Return the file a user means: a path, or the name of a shipped recipe.

    Raises:
        RecipeError: There is neither.
    """
    if name.is_file():
        return name
    recipes = shipped_recipes()
    if name.stem in recipes:
        return recipes[name.stem]
    near = difflib.get_close_matches(name.stem, recipes, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise RecipeError(
        f"There is no recipe {name}.{hint}\nShipped with slimface: {', '.join(recipes) or 'none'}."
    )
