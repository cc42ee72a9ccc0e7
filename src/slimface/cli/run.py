"""``slimface run``, and what the verbs that are recipes of one or two steps share with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.errors import MissingError, UsageError

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
        help="Folder in WIDER FACE's layout or RetinaFace's (train/label.txt), or 'drawn'. For "
        "classifiers: drawn-breeds, pets, pets:DIR, or folders:DIR, a folder for each class.",
        envvar="SLIMFACE_WIDER",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]


def run_command(
    recipe: Annotated[
        Path | None, typer.Argument(help="YAML file, or the name of a shipped recipe.")
    ] = None,
    out: OutOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value: --set steps.1.allocator.rate=0.4"),
    ] = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, show the costs, do nothing."),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Every step on a few pictures: does it all work here?"),
    ] = False,
    ablation: Annotated[
        bool,
        typer.Option("--ablate", help="Carry it out without each step in turn, too."),
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show the shipped recipes.")] = False,
    json: JsonOption = False,
) -> None:
    """Carry out a recipe; what is already done is not repeated."""
    from slimface.recipe.rehearsal import rehearsal
    from slimface.recipe.shipped import open_recipe

    if listing:
        _list(as_json=json)
        return
    if recipe is None:
        raise UsageError(
            "No recipe is named.\nName a file, or one of those that `slimface run --list` shows."
        )
    value = open_recipe(recipe, changes or ())
    if rehearse:
        value = rehearsal(value)
    if dry:
        _plan(value, as_json=json)
        return
    if ablation:
        _ablate(value, out, device=device, workers=workers, as_json=json)
        return
    carry_out(value, out, device=device, workers=workers, as_json=json)


def _ablate(
    recipe: "Recipe", out: Path | None, *, device: str, workers: int, as_json: bool
) -> None:
    """Run a recipe and all that lack one of its steps; print what each comes to."""
    from slimface.recipe.ablate import ablate
    from slimface.report.ablation import rows
    from slimface.report.card import write_card
    from slimface.report.run import read_run

    folder = out or Path("runs") / recipe.name
    found = ablate(
        recipe,
        folder,
        device=device,
        workers=workers,
        track=track,
        announce=_announce,
        begin=lambda title: diary.print(f"[bold]{title}[/]"),
    )
    results = list(found)
    card = write_card(folder)
    if as_json:
        lines = [result.model_dump(mode="json") for result in results]
        print_json({"folder": str(folder), "card": str(card), "ablation": lines})
        return
    table = [
        [row.title, row.parameters, row.macs, row.file, row.latency, row.quality or row.reason]
        for row in rows(read_run(folder))
    ]
    heads = ["recipe", "parameters", "MACs", "file", "latency", "quality"]
    print_table(f"{recipe.name}, without each step", heads, table)
    diary.print(f"Card:  {card}")


def _announce(number: int, step: "AnyStep", cached: bool) -> None:
    diary.print(f"  {number} {step.kind} {'done before' if cached else '…'}")


def _list(*, as_json: bool) -> None:
    """Show every shipped recipe; those of one file, which say the same, in one row."""
    from slimface.recipe.shipped import open_recipe, shipped_recipes

    recipes = [(one, open_recipe(Path(one.name))) for one in shipped_recipes().values()]
    if as_json:
        fields = ("name", "about", "reproduces", "differs", "takes", "model")
        print_json([{field: getattr(recipe, field) for field in fields} for _, recipe in recipes])
        return
    files: dict[Path, list[Any]] = {}
    for one, recipe in recipes:
        files.setdefault(one.path, []).append(recipe)
    rows = [
        ["\n".join(recipe.name for recipe in family), *_said(family[0])]
        for family in files.values()
    ]
    print_table("Recipes", ["name", "what it is"], rows)


def _said(recipe: "Recipe") -> list[str]:
    lines = {
        "": recipe.about,
        "Reproduces ": recipe.reproduces,
        "Differs: ": recipe.differs,
        "Takes ": recipe.takes,
    }
    return [
        "\n".join(f"{title}{text.strip().rstrip('.')}." for title, text in lines.items() if text)
    ]


def _plan(recipe: "Recipe", *, as_json: bool) -> None:
    """Show what a recipe will do and what its model will cost."""
    from dataclasses import asdict

    from slimface.recipe.plan import plan
    from slimface.recipe.recipe import write_recipe

    steps = plan(recipe)
    if as_json:
        print_json({"recipe": recipe.model_dump(mode="json"), "plan": [asdict(s) for s in steps]})
        return
    height, width = steps[-1].input_px
    rows = [
        [
            str(i),
            s.kind,
            s.says,
            f"{s.parameters:,}",
            f"{s.macs / 1e6:,.1f} M" + "≈" * (not s.exact),
        ]
        for i, s in enumerate(steps)
    ]
    print_table(
        recipe.name,
        ["", "step", "how", "parameters", f"MACs at {width}x{height}"],
        rows,
        caption="≈: near it; which channels go, or what is measured, decides",
    )
    diary.print(write_recipe(recipe), markup=False)


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
    """Return the source that ``--data`` names.

    Raises:
        MissingError: A package is not installed that annotated pictures are read or drawn with.
    """
    try:
        from slimface.data.drawn_breeds import DrawnBreeds
        from slimface.data.folders import ClassFolders
        from slimface.data.landmarks import LABELS
        from slimface.data.pets import Pets
        from slimface.data.source import DrawnScenes, Landmarks, WiderFace
    except ImportError as error:
        raise MissingError(
            f"reading annotated pictures needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[train]'"
        ) from None

    kind, colon, place = data.partition(":")
    if kind == "pets":
        return Pets(root=place)
    if kind == "folders" and colon:
        return ClassFolders(root=place)
    if data == "drawn-breeds":
        return DrawnBreeds()
    if data == "drawn":
        return DrawnScenes()
    if (Path(data) / "train" / LABELS).is_file():
        return Landmarks(root=data)
    return WiderFace(root=data)
