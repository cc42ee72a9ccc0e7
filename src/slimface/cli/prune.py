"""``slimface prune``: remove channels for good, then train what is left."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import print_json
from slimface.cli.run import (
    DataOption,
    DeviceOption,
    JsonOption,
    OutOption,
    SeedOption,
    WorkersOption,
    carry_out,
    source_of,
)

if TYPE_CHECKING:
    from slimface.model.detector import Detector

RATE = 0.3
"""Unless a rate or a budget is given."""


def prune(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")] = "eresfd",
    rate: Annotated[
        float | None,
        typer.Option(help=f"Share of the channels to remove.  [default: {RATE}]"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Instead of a rate: '-40% macs', '60k params', '150M macs@640x480'."),
    ] = None,
    importance: Annotated[
        str,
        typer.Option(
            help="fpgm, l1, l2, lamp, norm_scale, random, or from --data: taylor, activation."
        ),
    ] = "fpgm",
    reduction: Annotated[
        str | None,
        typer.Option(help="Over the layers of a coupled group: mean, sum, max, product, first."),
    ] = None,
    allocator: Annotated[
        str, typer.Option(help="uniform, global (one threshold), cost (value per MAC saved).")
    ] = "uniform",
    multiple_of: Annotated[int, typer.Option(min=1, help="Round widths up to a multiple.")] = 1,
    explain: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="Only show what ties a layer's channels, or why not."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Fine-tuning; 0: none.")] = 0,
    data: DataOption = "drawn",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr")] = 1e-3,
    size: Annotated[int, typer.Option(help="Side of the square crops, in pixels.")] = 640,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Remove channels for good, then train what is left."""
    if explain is not None:
        _explain(model, explain, as_json=json)
        return
    from slimface.recipe.recipe import Recipe

    value = {"kind": importance} | ({} if reduction is None else {"reduction": reduction})
    amount, said = _amount(rate, budget)
    steps: list[dict[str, Any]] = [
        {
            "kind": "prune",
            "importance": value,
            "allocator": {"kind": allocator, "multiple_of": multiple_of, **amount},
        }
    ]
    if epochs:
        schedule = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup_epochs": min(1.0, epochs / 10),
            "ema": 0.998,
        }
        steps.append({"kind": "train", "schedule": schedule, "size_px": size})
    how = importance if allocator == "uniform" else f"{importance}-{allocator}"
    recipe = Recipe.parse(
        {
            "name": _name("prune", Path(model).stem, how, said.replace("% of the channels", "")),
            "about": f"{model}: {said}, by {importance}, allocated by {allocator}.",
            "model": model,
            "source": source_of(data),
            "seed": seed,
            "steps": steps,
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)


def _amount(rate: float | None, budget: str | None) -> tuple[dict[str, Any], str]:
    """How much to remove, as fields of an allocator and in words."""
    from slimface.core.budget import parse_budget
    from slimface.errors import UsageError

    if budget is None:
        rate = RATE if rate is None else rate
        return {"rate": rate}, f"{100 * rate:g}% of the channels"
    if rate is not None:
        raise UsageError("A rate and a budget exclude each other.\nGive --rate or --budget.")
    parsed = str(parse_budget(budget))
    return {"budget": parsed}, parsed


def _name(*parts: str) -> str:
    """A name for the run, of characters that any file system takes."""
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)


def _explain(model: str, layer: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    from slimface.compress.prune.explain import explain
    from slimface.model.channels import channel_groups

    detector = _opened(model)
    ties = explain(detector, channel_groups(detector), layer)
    if as_json:
        print_json([asdict(tie) for tie in ties])
    else:
        typer.echo("\n\n".join(str(tie) for tie in ties))


def _opened(model: str) -> "Detector":
    """The module alone: a name of the zoo needs no weights here."""
    from slimface.model import zoo
    from slimface.model.build import build
    from slimface.model.checkpoint import load_checkpoint

    if Path(model).suffix:
        return load_checkpoint(model).detector
    return build(zoo.entry(model).spec, seed=0)
