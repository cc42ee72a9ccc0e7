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
from slimface.cli.train_net import split_net
from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.model.detector import Detector

SCHEDULES = ("one-shot", "iterative", "soft", "fade", "lasso")
RATE = 0.3
"""Unless a rate or a budget is given."""

_REPAIR_PICTURES = 192


def prune(
    model: Annotated[
        str,
        typer.Argument(help="Name of the zoo, or a checkpoint; mtcnn.rnet: that net of a cascade."),
    ] = "eresfd",
    rate: Annotated[
        float | None,
        typer.Option(help=f"Share of the channels to remove.  [default: {RATE}]"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of a rate: '-40% macs', '60k params', '300 kB', "
            "'-30% ms@onnxruntime:1t:640x480'; several have to be met together."
        ),
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
        str,
        typer.Option(
            help="uniform, global (one threshold), cost (value per MAC or ms saved), sensitivity."
        ),
    ] = "uniform",
    multiple_of: Annotated[int, typer.Option(min=1, help="Round widths up to a multiple.")] = 1,
    repair: Annotated[
        str | None,
        typer.Option(
            help="Right after each cut, from --data: reconstruct (all weights solved for, so that "
            "layers answer as before; norms then rest) or norms (their statistics taken anew)."
        ),
    ] = None,
    taught: Annotated[
        bool, typer.Option("--taught", help="The whole model teaches what is trained.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="Only show what ties a layer's channels, or why not."),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Only show how the loss rises as each group loses channels; --out X.svg draws it.",
        ),
    ] = False,
    schedule: Annotated[
        str,
        typer.Option(
            help="one-shot; iterative (in rounds); soft (filters may grow back); fade (a growing "
            "penalty first); lasso (a group lasso first)."
        ),
    ] = "one-shot",
    rounds: Annotated[int, typer.Option(min=1, help="For iterative.")] = 5,
    every: Annotated[int, typer.Option(min=1, help="For soft: zero after so many epochs.")] = 1,
    reinit: Annotated[
        bool, typer.Option("--reinit", help="Train the widths that were found from scratch.")
    ] = False,
    epochs: Annotated[
        int,
        typer.Option(
            min=0, help="Of training: after the cut, after each round, or while pruning; 0: none."
        ),
    ] = 0,
    finish: Annotated[int, typer.Option(min=0, help="Further epochs, after everything.")] = 0,
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
    value = {"kind": importance} | ({} if reduction is None else {"reduction": reduction})
    if sensitivity:
        from slimface.cli.sensitivity import show_sensitivity

        show_sensitivity(model, value, data, out, as_json=json)
        return
    from slimface.data.folders import ClassSource
    from slimface.recipe.recipe import Recipe

    amount, said = _amount(rate, budget)
    cut: dict[str, Any] = {
        "kind": "prune",
        "importance": value,
        "allocator": {"kind": allocator, "multiple_of": multiple_of, **amount},
    }
    model, net = split_net(model)
    if net is not None:
        if epochs or finish or schedule != "one-shot" or budget or allocator != "uniform":
            raise UsageError(
                f"Of one net of a cascade, the command removes a --rate of each layer at once.\n"
                f"Then train it (slimface train RESULT/model.safetensors.{net}), or write the step "
                "prune_net in a recipe: it removes a few channels at a time and trains in between."
            )
        rates = {f"{net}.*": amount["rate"]}
        cut["allocator"] = {"kind": "per_group", "rates": rates, "multiple_of": multiple_of}
        said += f" of {net}"

    source = source_of(data)
    of_task: dict[str, Any] = {}
    if isinstance(source, ClassSource):
        of_task, about = _for_classes(model)
        cut |= about
    if repair is not None:
        batches = max(_REPAIR_PICTURES // batch_size, 1)
        look = {**cut.get("look", {}), "batches": batches, "batch_size": batch_size}
        cut["repair"] = {"kind": repair, "look": look}
    if taught:
        inner = {"of": of_task["criterion"]} if of_task else {}
        of_task["criterion"] = {"kind": "distill", "teacher": "step:0", **inner}

    def train(epochs: int) -> dict[str, Any]:
        course = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup_epochs": min(1.0, epochs / 10),
            "ema": 0.998,
            "frozen_norms": repair == "reconstruct",
        }
        return {"kind": "train", "schedule": course, "size_px": size, **of_task}

    steps = _steps(schedule, cut, train(epochs) if epochs else None, rounds=rounds, every=every)
    if reinit:
        if not finish:
            raise UsageError("New weights have to learn.\nSay how long: --reinit --finish 100.")
        steps.append({"kind": "reinit"})
    if finish:
        steps.append(train(finish))
    marks = [schedule] * (schedule != "one-shot") + ["reinit"] * reinit
    how = importance if allocator == "uniform" else f"{importance}-{allocator}"
    recipe = Recipe.parse(
        {
            "name": _name(
                "prune",
                Path(model).stem,
                *marks,
                how,
                said.replace("% of the channels", ""),
            ),
            "about": f"{model}: {said}, by {importance}, allocated by {allocator}.",
            "model": model,
            "source": source,
            "seed": seed,
            "steps": steps,
        },
        where="the command",
    )
    carry_out(recipe, out, device=device, workers=workers, as_json=json)


def _steps(
    schedule: str, cut: dict[str, Any], train: dict[str, Any] | None, *, rounds: int, every: int
) -> list[dict[str, Any]]:
    """The steps of a schedule, ``train`` being the training after, between or while pruning."""
    if schedule not in SCHEDULES:
        raise UsageError(
            f"There is no schedule {schedule!r}.\nChoose one of {', '.join(SCHEDULES)}."
        )
    if schedule == "one-shot":
        return [cut, *([train] if train else [])]
    if train is None:
        raise UsageError(f"The schedule {schedule} needs training.\nSay how long: --epochs 20.")
    match schedule:
        case "iterative":
            return [{"kind": "iterative_prune", "prune": cut, "train": train, "rounds": rounds}]
        case "soft":
            return [{"kind": "soft_prune", "prune": cut, "train": train, "every": every}]
        case "fade":
            return [{"kind": "fade_out", "prune": cut, "train": train}]
        case _:
            inner = {"of": train["criterion"]} if "criterion" in train else {}
            return [train | {"criterion": {"kind": "group_lasso", **inner}}, cut]


def _amount(rate: float | None, budgets: list[str] | None) -> tuple[dict[str, Any], str]:
    """How much to remove, as fields of an allocator and in words."""
    from slimface.core.budget import parse_budget

    if not budgets:
        rate = RATE if rate is None else rate
        return {"rate": rate}, f"{100 * rate:g}% of the channels"
    if rate is not None:
        raise UsageError("A rate and a budget exclude each other.\nGive --rate or --budget.")
    first, *others = [str(parse_budget(text)) for text in budgets]
    return {"budget": first, "also": others}, " and ".join([first, *others])


def _name(*parts: str) -> str:
    """A name for the run, of characters that any file system takes."""
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)


def _for_classes(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What training and cutting a classifier differ in: fields of ``train`` and of ``prune``."""
    from slimface.core.spec import ClassifierSpec
    from slimface.recipe.start import spec_of

    spec = spec_of(model)
    if not isinstance(spec, ClassifierSpec):
        raise UsageError(
            f"{model} does {spec.task}, and these pictures have classes.\n"
            "Name pictures with faces, or a classifier."
        )
    rule = spec.preprocess
    criterion = {"kind": "cross_entropy"}
    look = {"size_px": max(rule.height_px, 64), "criterion": criterion, "batch_size": 16}
    return (
        {"criterion": criterion, "augment": {"kind": "crop_flip"}},
        {"look": look, "height_px": rule.height_px, "width_px": rule.width_px},
    )


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
