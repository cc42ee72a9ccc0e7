"""``slimface train``: from scratch, from published weights, or onwards from a checkpoint."""

import re
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
from slimface.cli.train_net import net_recipe, split_net
from slimface.errors import UsageError

OPTIMIZERS = ("adamw", "adam", "sgd")


def train(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")] = "eresfd",
    data: DataOption = "drawn",
    scratch: Annotated[bool, typer.Option(help="Start from random weights.")] = False,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Start from random weights but for the backbone: a file with its ImageNet "
            "weights, or 'published' to download them.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The family's.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="The family's.", show_default=False)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="The family's, for this batch size; for trained weights, the one it ends with.",
            show_default=False,
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}.", show_default="the family's")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=64, help="Side of the square crops, in pixels.", show_default=False),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="mtcnn.pnet and the like: learn from this folder of slimface data crops.",
            show_default="cut anew",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of the moving average; 0: none.", show_default="the family's"),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Learn what this model answers, too: a name or a checkpoint."
        ),
    ] = None,
    teacher_weight: Annotated[
        float, typer.Option(min=0, max=1, help="The teacher's share of the loss.")
    ] = 0.9,
    temperature: Annotated[float, typer.Option(help="Softens the scores of both.")] = 3.0,
    feature_weight: Annotated[
        float, typer.Option(min=0, help="Of the distance between inner maps; 0: none.")
    ] = 0.0,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train a detector or a classifier; run again, it goes on where it was stopped.

    mtcnn.pnet, mtcnn.rnet, mtcnn.onet (or CHECKPOINT.rnet) train one net of a cascade.

    What no option says is as the family was published (slimface.train.presets).
    """
    from slimface.model.zoo import names
    from slimface.recipe.classes import is_classifier
    from slimface.recipe.recipe import Recipe
    from slimface.recipe.start import spec_of
    from slimface.train.presets import adapted, preset

    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise UsageError(
            f"--optimizer {optimizer} is none of {', '.join(OPTIMIZERS)}.\nChoose one."
        )
    random = scratch or backbone_weights is not None
    taught_by = None
    if teacher is not None:
        taught_by = lesson(teacher, teacher_weight, temperature, feature_weight)
    cascade, net = split_net(model)
    if net is None and crops is not None:
        raise UsageError(
            f"{model} learns from whole pictures; --crops are for one net of a cascade.\n"
            "Name the net, such as mtcnn.rnet."
        )
    if net is not None:
        recipe = net_recipe(
            cascade,
            net,
            source=source_of(data),
            scratch=random,
            seed=seed,
            crops=crops,
            schedule={
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "optimizer": optimizer,
                "ema": ema,
            },
            lesson=taught_by,
        )
        carry_out(recipe, out, device=device, workers=workers, as_json=json)
        return
    course = adapted(
        preset(spec_of(model)),
        onwards=not random,
        frozen_norms=not random and model in names(),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
    )
    settings: dict[str, Any] = course.model_dump()
    if taught_by is not None:
        settings["criterion"] = {**taught_by, "of": settings["criterion"]}
    if size is not None:
        settings["size_px"] = size
    if ema is not None:
        settings["schedule"]["ema"] = ema
    length = course.schedule.epochs
    seen = "" if is_classifier(model) else f" on crops of {settings['size_px']} pixels"
    taught = "" if teacher is None else f", taught by {teacher}"
    recipe = Recipe.parse(
        {
            "name": f"train-{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(model).stem)}",
            "about": f"{model} trained for {length} epochs{seen}{taught}.",
            "model": model,
            "pretrained": not random,
            "backbone": backbone_weights,
            "source": source_of(data),
            "seed": seed,
            "steps": [settings],
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)


def lesson(
    teacher: str, weight: float, temperature: float, feature_weight: float
) -> dict[str, Any]:
    """Return the criterion that a teacher is, but for the one it is around."""
    return {
        "kind": "distill",
        "teacher": teacher,
        "weight": weight,
        "temperature": temperature,
        "feature_weight": feature_weight,
    }
