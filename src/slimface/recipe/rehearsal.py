"""Rehearsal: a recipe on a handful of pictures, to see that every step of it works here."""

from typing import Any

from slimface.loading import CHECKPOINT
from slimface.recipe.recipe import Recipe

PICTURES = 24
"""Training pictures; few as they are, they fill some batches."""

_SMALL: dict[str, float] = {
    # A picture or two held out may have no face that is large enough.
    "holdout": 0,
    "epochs": 2,
    "batch_size": 4,
    "every": 1,
    "rounds": 2,
    "runs": 2,
    "batches": 1,
    "random": 1,
    "guided": 1,
    "trials": 3,
    "size_px": 256,
}
"""What makes a step long, wherever it stands -> what is enough to see it work. Numbers that are
smaller already stay."""


def rehearsal(recipe: Recipe) -> Recipe:
    """Return the same steps with little to do; what comes out has learnt nothing."""
    data = recipe.model_dump(mode="json")
    steps = [_short(step) for step in data["steps"]]
    named = {"name": f"{recipe.name}-rehearsal", "source": _few(data["source"]), "steps": steps}
    return Recipe.parse(data | named, where=f"the rehearsal of {recipe.name}")


def _few(source: dict[str, Any]) -> dict[str, Any]:
    match source["kind"]:
        case "widerface" | "landmarks":
            return source | {"limit": PICTURES}
        case "drawn":
            return source | {"train": PICTURES, "val": 4}
        case "pets" | "drawn_breeds":
            # Nobody should wait for 800 MB to see whether a recipe works.
            return {"kind": "drawn_breeds", "classes": 4, "train": 8, "val": 2, "test": 4}
        case _:
            return source


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "evaluate":
        return value | {"input": {"kind": "longest", "longest_px": _SMALL["size_px"]}}
    return {key: _least(key, one) for key, one in value.items()}


def _least(key: str, value: Any) -> Any:
    if key == "teacher" and str(value).endswith(CHECKPOINT):
        # It may not be there yet, and knows other classes than those of a rehearsal.
        return "step:0"
    if key in _SMALL and isinstance(value, int | float):
        return min(value, _SMALL[key])
    return _short(value)
