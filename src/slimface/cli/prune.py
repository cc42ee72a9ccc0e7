"""``slimface prune``: remove channels for good, then train what is left."""

from pathlib import Path
from typing import Annotated, Any

import typer

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


def prune(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")] = "eresfd",
    rate: Annotated[float, typer.Option(help="Share of the channels to remove.")] = 0.3,
    importance: Annotated[str, typer.Option(help="fpgm, l1 or l2.")] = "fpgm",
    multiple_of: Annotated[int, typer.Option(min=1, help="Round widths up to a multiple.")] = 1,
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
    from slimface.recipe.recipe import Recipe

    steps: list[dict[str, Any]] = [
        {
            "kind": "prune",
            "importance": {"kind": importance},
            "allocator": {"rate": rate, "multiple_of": multiple_of},
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
    recipe = Recipe.parse(
        {
            "name": f"prune-{Path(model).stem}-{importance}-{round(100 * rate)}",
            "about": f"{model}: {rate:.0%} of the channels removed by {importance}.",
            "model": model,
            "source": source_of(data),
            "seed": seed,
            "steps": steps,
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)
