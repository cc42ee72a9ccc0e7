"""``slimface train mtcnn.rnet``: one net of a cascade."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.data.crops import Net
    from slimface.recipe.recipe import Recipe

NETS: tuple["Net", ...] = ("pnet", "rnet", "onet")


def split_net(model: str) -> tuple[str, "Net | None"]:
    """Return the cascade and the net of ``mtcnn.rnet`` or ``x.safetensors.rnet``, if it is so."""
    whole, _, last = model.rpartition(".")
    for net in NETS:
        if whole and net == last:
            return whole, net
    return model, None


def net_recipe(
    cascade: str,
    net: "Net",
    *,
    source: Any,
    scratch: bool,
    seed: int,
    crops: Path | None,
    schedule: dict[str, Any],
    lesson: dict[str, Any] | None = None,
) -> "Recipe":
    """Return the recipe that trains one net; what ``schedule`` does not say is as published.

    ``lesson`` is a criterion that comes around the published one.

    Raises:
        UsageError: A random net was to be mined for by random nets.
    """
    from slimface.recipe.recipe import Recipe
    from slimface.train.nets import adapted

    if scratch and net != NETS[0] and crops is None:
        raise UsageError(
            f"{net} learns from what the nets before it let through, and --scratch makes these "
            "random, too.\nTrain pnet first and name its result, give --crops DIR, or run the "
            "whole cascade: slimface run mtcnn"
        )
    step = adapted(net, onwards=not scratch, **schedule)
    if crops is not None:
        step = step.model_copy(update={"crops": str(crops)})
    settings = step.model_dump()
    if lesson is not None:
        settings["criterion"] = lesson
    return Recipe.parse(
        {
            "name": f"train-{Path(cascade.partition(',')[0]).stem}-{net}",
            "about": f"{net} of {cascade} trained for {step.schedule.epochs} epochs on its crops.",
            "model": cascade,
            "pretrained": not scratch,
            "source": source,
            "seed": seed,
            "steps": [settings],
        },
        where="the command",
    )
