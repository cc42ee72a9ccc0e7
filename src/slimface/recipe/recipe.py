"""Recipe: a list of steps, as a value and as YAML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from slimface.bench.step import Measure
from slimface.compress.prune.fade import FadeOut
from slimface.compress.prune.iterative import IterativePrune
from slimface.compress.prune.reinit import Reinit
from slimface.compress.prune.soft import SoftPrune
from slimface.compress.prune.step import Prune
from slimface.compress.search.step import Search
from slimface.compress.shrink.step import Shrink
from slimface.core.value import Value
from slimface.data.source import DrawnScenes, Source
from slimface.errors import RecipeError
from slimface.evaluate.step import Evaluate
from slimface.export.step import Export
from slimface.train.step import Train

AnyStep = Annotated[
    Train
    | Prune
    | IterativePrune
    | SoftPrune
    | FadeOut
    | Reinit
    | Search
    | Shrink
    | Evaluate
    | Export
    | Measure,
    Field(discriminator="kind"),
]
"""Everything a recipe may do. Adding a step costs its class and its name here."""


class Recipe(Value):
    """Where to start, on which pictures, and what to do in which order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, and of its folder below ``runs/``."""

    about: str = ""
    """A sentence for the card."""

    model: str = "eresfd"
    """A name of the zoo, or a checkpoint of slimface."""

    pretrained: bool = True
    """Start from the published weights; false: from random ones, drawn from the seed."""

    backbone: str | None = None
    """ImageNet weights for the backbone of a detector that starts from random ones: a file, or
    ``published`` to download them. None: random as the rest."""

    source: Source = DrawnScenes()
    seed: int = 0
    steps: tuple[AnyStep, ...] = Field(min_length=1)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML.

    Args:
        path: The file.
        overrides: Like ``steps.1.allocator.rate=0.4``: changes on top of the file.

    Raises:
        RecipeError: The file is no YAML, or breaks a rule; every mistake is named.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path}: the recipe cannot be read ({error.strerror}).\n"
            "`ls recipes/` shows the ones that come with slimface."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}\nCorrect it and run it again.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds no mapping.\nA recipe has name, model, source and steps.")
    for override in overrides:
        _override(data, override)
    return Recipe.parse(data, where=str(path))


def write_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every default spelt out."""
    data = recipe.model_dump(mode="json")
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return text


def _override(data: Any, override: str) -> None:
    """Set one value deep inside ``data``."""
    place, equals, text = override.partition("=")
    keys = place.split(".")
    try:
        if not equals:
            raise KeyError(place)
        for key in keys[:-1]:
            data = data[int(key)] if isinstance(data, list) else data.setdefault(key, {})
        data[int(keys[-1]) if isinstance(data, list) else keys[-1]] = yaml.safe_load(text)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise RecipeError(
            f"--set {override}: there is no such place in the recipe.\n"
            "Write it like --set steps.1.allocator.rate=0.4; steps count from 0."
        ) from None
