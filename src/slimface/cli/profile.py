"""``slimface profile``: parameters, MACs and memory, layer by layer, before and after."""

from typing import TYPE_CHECKING, Annotated

import typer

from slimface.cli.console import print_json, print_table
from slimface.cli.size import read_size

if TYPE_CHECKING:
    from slimface.model.network import Network
    from slimface.model.profile import LayerProfile, Profile


IMAGENET_CLASSES = 1000
"""What a classifier has that was not trained here."""


def profile(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")],
    size: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT of the picture.  [default: 640x480; a classifier's own]"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model to compare with: the one before.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what a model costs before it runs: parameters, MACs and activation memory per layer."""
    from slimface.model.profile import profile as count

    opened = _opened(model)
    height, width = _size_of(opened) if size is None else read_size(size)
    after = count(opened, height, width)
    before = None if against is None else count(_opened(against), height, width)
    if json:
        both = {"profile": after.model_dump(mode="json")}
        if before is not None:
            both["against"] = before.model_dump(mode="json")
        print_json(both)
    elif before is None:
        _show(after)
    else:
        _show_change(before, after)


def _opened(model: str) -> "Network":
    """The module alone: a name of the zoo needs no weights here."""
    from pathlib import Path

    from slimface.model import zoo
    from slimface.model.build import build
    from slimface.model.checkpoint import load_checkpoint
    from slimface.recipe.classes import classifier_spec, is_classifier

    if is_classifier(model):
        return build(classifier_spec(model, tuple(map(str, range(IMAGENET_CLASSES)))), seed=0)
    if Path(model).suffix:
        return load_checkpoint(model).network
    return build(zoo.entry(model).spec, seed=0)


def _size_of(network: "Network") -> tuple[int, int]:
    from slimface.core.spec import ClassifierSpec

    if isinstance(network.spec, ClassifierSpec):
        return network.spec.preprocess.height_px, network.spec.preprocess.width_px
    return 480, 640


def _show(found: "Profile") -> None:
    rows = [
        (
            layer.name,
            layer.kind,
            _parameters(layer),
            _macs(layer),
            _shape(layer),
            str(layer.uses),
        )
        for layer in found.layers
    ]
    rows.append(("total", "", _parameters(found), _macs(found), "", ""))
    print_table(
        f"{found.model} at {found.width}x{found.height}",
        ("layer", "kind", "parameters", "M MACs", "output", "uses"),
        rows,
        caption=_memory(found),
    )


def _show_change(before: "Profile", after: "Profile") -> None:
    from slimface.model.profile import compare_profiles

    rows = []
    for change in compare_profiles(before, after):
        first, last = change.before, change.after
        rows.append(
            (
                change.name,
                *(_parameters(layer) for layer in (first, last)),
                *(_macs(layer) for layer in (first, last)),
                f"{_shape(first)} -> {_shape(last)}",
            )
        )
    rows.append(
        (
            "total",
            *(_parameters(whole) for whole in (before, after)),
            *(_macs(whole) for whole in (before, after)),
            "",
        )
    )
    print_table(
        f"{before.model} -> {after.model} at {after.width}x{after.height}",
        ("layer", "parameters", "after", "M MACs", "after", "output"),
        rows,
        caption=f"before: {_memory(before)}\nafter: {_memory(after)}\n"
        f"parameters {after.parameters / before.parameters - 1:+.1%}, "
        f"MACs {after.macs / before.macs - 1:+.1%}, activations "
        f"{after.activation_bytes / before.activation_bytes - 1:+.1%}",
    )


def _parameters(part: "LayerProfile | Profile | None") -> str:
    return "" if part is None else f"{part.parameters:,}"


def _macs(part: "LayerProfile | Profile | None") -> str:
    return "" if part is None else f"{part.macs / 1e6:,.3f}"


def _shape(layer: "LayerProfile | None") -> str:
    return "" if layer is None else "x".join(str(side) for side in layer.output)


def _memory(found: "Profile") -> str:
    return (
        f"weights {found.weight_bytes / 2**20:.2f} MiB, activations at most "
        f"{found.activation_bytes / 2**20:.2f} MiB, in 32-bit floats"
    )
