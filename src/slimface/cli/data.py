"""``slimface data``: what is made from annotated pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.run import DataOption, JsonOption, SeedOption, source_of
from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.data.crop_set import CropSet
    from slimface.model.network import Network

app = typer.Typer(help="What is made from annotated pictures.", no_args_is_help=True)

NETS = ("pnet", "rnet", "onet")


@app.callback()
def _group() -> None:
    """What is made from annotated pictures."""


@app.command("crops")
def crops(
    net: Annotated[str, typer.Argument(help=f"Which net is to learn: {', '.join(NETS)}.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="The cascade whose rules count and whose earlier nets mine."
        ),
    ] = "mtcnn",
    data: DataOption = "drawn",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Cut from so many pictures, spread evenly.")
    ] = None,
    smallest: Annotated[
        float | None,
        typer.Option(min=1, help="Learn faces from so many pixels on.", show_default="40"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Cut the crops that a net of a cascade learns from; stopped, it goes on where it was.

    Those of rnet are what pnet lets through, those of onet what both do.
    """
    if net not in NETS:
        raise UsageError(f"'{net}' is no net of a cascade.\nChoose {', '.join(NETS)}.")
    from slimface.data.crops import Cuts
    from slimface.step import Context
    from slimface.train.nets import cut_crops

    source = source_of(data)
    if limit is not None:
        source = source.model_copy(update={"train" if data == "drawn" else "limit": limit})
    cascade = _cascade(model, net)
    changes = {} if smallest is None else {"smallest_px": smallest}
    context = Context(folder=out, source=source, seed=seed, workers=workers, track=track)
    found = cut_crops(cascade, net, out, context, cuts=Cuts(**changes))  # type: ignore[arg-type]
    _show(found, out, as_json=json)


def _cascade(model: str, net: str) -> "Network":
    """The model as a module; the crops of the first net need its rules alone, and no weights."""
    from slimface.cli.opening import open_model
    from slimface.model.build import build
    from slimface.recipe.start import spec_of

    if net == NETS[0]:
        return build(spec_of(model), seed=0)
    opened = open_model(model)
    if not hasattr(opened.network, "detector"):
        raise UsageError(
            f"{model} is exported already.\nName a checkpoint, or a cascade of the zoo."
        )
    network: Network = opened.network.detector
    return network


def _show(found: "CropSet", out: Path, *, as_json: bool) -> None:
    counts: dict[str, Any] = found.counts()
    if as_json:
        print_json(
            {
                "folder": str(out),
                "net": found.plan.net,
                "side_px": found.side_px,
                "crops": len(found),
                "kinds": counts,
                "fingerprint": found.fingerprint(),
            }
        )
        return
    title = f"Crops for {found.plan.net}, {found.side_px}x{found.side_px} pixels"
    print_table(title, ["kind", "crops"], [*counts.items(), ("all", len(found))])
    diary.print(f"Train on them: slimface train mtcnn.{found.plan.net} --crops {out}", markup=False)
