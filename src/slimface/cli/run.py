"""``slimface run``, and what the verbs that are recipes of one or two steps share with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track

if TYPE_CHECKING:
    from slimface.recipe.recipe import AnyStep, Recipe

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder.  [default: runs/<name>]")
]
DeviceOption = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, mps.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that prepare training pictures.")]
SeedOption = Annotated[int, typer.Option(help="Every random choice follows from it.")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder in WIDER FACE's layout or RetinaFace's (train/label.txt), or 'drawn'.",
        envvar="SLIMFACE_WIDER",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]


def run_command(
    recipe: Annotated[Path, typer.Argument(help="YAML file, or the name of a shipped recipe.")],
    out: OutOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value: --set steps.1.allocator.rate=0.4"),
    ] = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    dry: Annotated[bool, typer.Option("--dry-run", help="Check everything, do nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Carry out a recipe; what is already done is not repeated."""
    from slimface.recipe.recipe import read_recipe, write_recipe
    from slimface.recipe.shipped import find_recipe

    value = read_recipe(find_recipe(recipe), changes or ())
    if dry:
        diary.print(f"{recipe} makes sense: {len(value.steps)} steps.")
        typer.echo(write_recipe(value), nl=False)
        return
    carry_out(value, out, device=device, workers=workers, as_json=json)


def carry_out(
    recipe: "Recipe", out: Path | None, *, device: str, workers: int, as_json: bool
) -> None:
    """Run a recipe under a progress bar, write its card, and print what came of it."""
    from slimface.recipe.run import run
    from slimface.report.card import write_card
    from slimface.report.run import read_run
    from slimface.report.story import tell

    folder = out or Path("runs") / recipe.name

    def announce(number: int, step: "AnyStep", cached: bool) -> None:
        said = "done before" if cached else "…"
        diary.print(f"[bold]{number}/{len(recipe.steps)} {step.kind}[/] {said}")

    run(recipe, folder, device=device, workers=workers, track=track, announce=announce)
    card = write_card(folder)
    records = read_run(folder)
    if as_json:
        entries = [
            {"step": entry.step, "name": entry.name, "kind": entry.kind, "record": entry.record}
            for entry in records.entries
            if entry.kind not in ("epoch", "pictures")
        ]
        print_json({"folder": str(folder), "card": str(card), "records": entries})
        return
    story = tell(records)
    rows = [[row.name, row.before, row.after, row.change, row.detail] for row in story.table]
    print_table(story.title, ["", "before", "after", "change", "of what"], rows)
    for stamp in story.stamps:
        diary.print(f"Protocol {stamp}")
    diary.print(f"Model: {folder / 'model.safetensors'}\nCard:  {card}")


def source_of(data: str) -> Any:
    """Return the source that ``--data`` names."""
    from slimface.data.landmarks import LABELS
    from slimface.data.source import DrawnScenes, Landmarks, WiderFace

    if data == "drawn":
        return DrawnScenes()
    if (Path(data) / "train" / LABELS).is_file():
        return Landmarks(root=data)
    return WiderFace(root=data)
