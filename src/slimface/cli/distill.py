"""``slimface distill``: train a model with a teacher."""

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
from slimface.cli.train import lesson
from slimface.cli.train_net import split_net
from slimface.errors import UsageError


def distill(
    student: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")],
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", metavar="MODEL", help="A name, or a checkpoint.")
    ],
    data: DataOption = "drawn",
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Learn from the faces that the teacher finds on these pictures, too.",
        ),
    ] = None,
    weight: Annotated[
        float, typer.Option(min=0, max=1, help="The teacher's share of the loss.")
    ] = 0.9,
    temperature: Annotated[float, typer.Option(help="Softens the scores of both.")] = 3.0,
    feature_weight: Annotated[
        float, typer.Option(min=0, help="Of the distance between inner maps; 0: none.")
    ] = 0.0,
    scratch: Annotated[bool, typer.Option(help="Start from random weights.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the family's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="the family's")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", show_default="the family's")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=64, help="Side of the square crops, in pixels.")
    ] = None,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train STUDENT on what TEACHER answers, beside what the annotations say."""
    from slimface.model.zoo import names
    from slimface.recipe.recipe import Recipe
    from slimface.recipe.start import spec_of
    from slimface.train.presets import adapted, preset

    cascade, net = split_net(student)
    if net is not None or spec_of(cascade).task == "cascade":
        raise UsageError(
            f"{student}: the nets of a cascade learn from a teacher one by one.\nUse slimface "
            f"train {cascade}.{net or 'pnet'} --teacher {teacher}"
        )
    course = adapted(
        preset(spec_of(student)),
        onwards=not scratch,
        frozen_norms=not scratch and student in names(),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    settings: dict[str, Any] = course.model_dump()
    if size is not None:
        settings["size_px"] = size
    taught_by = lesson(teacher, weight, temperature, feature_weight)
    settings["criterion"] = {**taught_by, "of": settings["criterion"]}
    if unlabelled is not None:
        settings = {
            "kind": "pseudo_label",
            "teacher": teacher,
            "pictures": str(unlabelled),
            "train": settings,
        }
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{Path(student).stem}-by-{Path(teacher).stem}")
    recipe = Recipe.parse(
        {
            "name": f"distill-{plain}",
            "about": f"{student} taught by {teacher} for {course.schedule.epochs} epochs.",
            "model": student,
            "pretrained": not scratch,
            "source": source_of(data),
            "seed": seed,
            "steps": [settings],
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)
