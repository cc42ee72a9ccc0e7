"""``slimface train``: from scratch, from published weights, or onwards from a checkpoint."""

from pathlib import Path
from typing import Annotated

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


def train(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")] = "eresfd",
    data: DataOption = "drawn",
    scratch: Annotated[bool, typer.Option(help="Start from random weights.")] = False,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr")] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="adamw, adam or sgd.")] = "adamw",
    size: Annotated[int, typer.Option(help="Side of the square crops, in pixels.")] = 640,
    ema: Annotated[float, typer.Option(help="Decay of the moving average; 0: none.")] = 0.998,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train a detector; run again, it goes on where it was stopped."""
    from slimface.recipe.recipe import Recipe

    name = f"train-{Path(model).stem}"
    schedule = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "ema": ema,
        "warmup_epochs": min(1.0, epochs / 10),
    }
    recipe = Recipe.parse(
        {
            "name": name,
            "about": f"{model} trained for {epochs} epochs on crops of {size} pixels.",
            "model": model,
            "pretrained": not scratch,
            "source": source_of(data),
            "seed": seed,
            "steps": [{"kind": "train", "schedule": schedule, "size_px": size}],
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)
