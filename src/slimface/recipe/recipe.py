"""Recipe: a list of steps, as a value and as YAML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from slimface.bench.step import Measure
from slimface.compress.distill.step import PseudoLabel
from slimface.compress.prune.fade import FadeOut
from slimface.compress.prune.iterative import IterativePrune
from slimface.compress.prune.net import PruneNet
from slimface.compress.prune.reinit import Reinit
from slimface.compress.prune.soft import SoftPrune
from slimface.compress.prune.step import Prune
from slimface.compress.quantize.qat import Qat
from slimface.compress.quantize.step import Quantize
from slimface.compress.search.bfpgm import BFpgm
from slimface.compress.search.soft import SoftSearch
from slimface.compress.search.step import Search
from slimface.compress.shrink.step import Shrink
from slimface.core.value import Value
from slimface.data.source import DrawnScenes, Source
from slimface.errors import RecipeError
from slimface.evaluate.step import Evaluate
from slimface.export.step import Export
from slimface.train.nets import TrainNet
from slimface.train.step import Train

AnyStep = Annotated[
    Train
    | TrainNet
    | Prune
    | IterativePrune
    | PruneNet
    | SoftPrune
    | FadeOut
    | Reinit
    | Search
    | BFpgm
    | SoftSearch
    | Shrink
    | PseudoLabel
    | Qat
    | Quantize
    | Evaluate
    | Export
    | Measure,
    Field(discriminator="kind"),
]
"""Everything a recipe may do. Adding a step costs its class and its name here."""


FAMILY = "family"
"""Key of the parameters of a family; see ``recipe.shipped``."""


class Recipe(Value):
    """Where to start, on which pictures, and what to do in which order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, and of its folder below ``runs/``."""

    about: str = ""
    """A sentence for the card."""

    reproduces: str = ""
    """The published system, where there is one."""

    differs: str = ""
    """In what it is not as published."""

    takes: str = ""
    """How long, on which machine."""

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
    data = read_yaml(read_text(path), where=str(path))
    for change in overrides:
        override(data, change)
    return Recipe.parse(data, where=str(path))


def read_text(path: Path) -> str:
    """Return what a recipe's file holds.

    Raises:
        RecipeError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: the recipe cannot be read ({error.strerror}).\n"
            "`slimface run --list` shows the ones that come with slimface."
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not YAML: {error}\nCorrect it and run it again.") from None


def read_yaml(text: str, *, where: str) -> dict[str, Any]:
    """Read what a recipe's file says, and check nothing yet.

    Raises:
        RecipeError: It is no YAML, or no mapping.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {error}\nCorrect it and run it again.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{where} holds no mapping.\nA recipe has name, model, source and steps.")
    return data


def write_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every default spelt out."""
    data = recipe.model_dump(mode="json")
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return text


def override(data: Any, change: str) -> None:
    """Set one value deep inside ``data``, as ``place=value`` says.

    Raises:
        RecipeError: There is no such place.
    """
    place, equals, text = change.partition("=")
    keys = place.split(".")
    try:
        if not equals:
            raise KeyError(place)
        for key in keys[:-1]:
            data = data[int(key)] if isinstance(data, list) else data.setdefault(key, {})
        data[int(keys[-1]) if isinstance(data, list) else keys[-1]] = yaml.safe_load(text)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise RecipeError(
            f"--set {change}: there is no such place in the recipe.\n"
            "Write it like --set steps.1.allocator.rate=0.4; steps count from 0."
        ) from None
