"""``slimface classify``: the class of pictures, and what ``evaluate`` says about a classifier."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.core.accuracy import Accuracy


def classify(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A checkpoint, or an exported file.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the runtime.")] = None,
    device: Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, mps.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Say what is on PICTURES, by a classifier."""
    from slimface.deploy.media import read_picture
    from slimface.loading import load_classifier

    classifier = load_classifier(model, threads=threads, device=device)
    files = list(_files(pictures))
    found: dict[str, list[tuple[str, float]]] = {}
    for file in track(files, "classify"):
        found[str(file)] = classifier.classify(read_picture(file)).best(top)
    if json:
        print_json(
            [
                {"picture": name, "classes": [{"name": n, "score": s} for n, s in best]}
                for name, best in found.items()
            ]
        )
        return
    rows = [
        [name, ", ".join(f"{n} {100 * s:.1f} %" for n, s in best)] for name, best in found.items()
    ]
    print_table(f"By {classifier.name}", ["picture", "classes"], rows)


def score_classes(
    model: str,
    source: Any,
    split: str,
    *,
    out: Path | None,
    threads: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Score a classifier on a split of a data set with classes, and print what came of it."""
    from slimface.data.folders import SPLITS
    from slimface.evaluate.accuracy import accuracy
    from slimface.files import write_text
    from slimface.loading import load_classifier

    if split not in SPLITS:
        raise UsageError(
            f"There is no split '{split}' of classes.\nName one of {', '.join(SPLITS)}."
        )
    classifier = load_classifier(model, threads=threads, device=device)
    command = ("slimface", *sys.argv[1:])
    pictures = source.labelled(split)
    result = accuracy(classifier, pictures, command=command, progress=track)
    if out is not None:
        write_text(out, result.model_dump_json(indent=1) + "\n")
        diary.print(f"Record: {out}", markup=False)
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    show_accuracy(result)


def show_accuracy(result: "Accuracy") -> None:
    """Print top-1, top-5, the classes, and what is taken for what."""
    span = f"{100 * result.low:.1f} … {100 * result.high:.1f}"
    said = f"{result.protocol.truth}, {result.protocol.pictures} pictures, stamp {result.stamp}"
    print_table(
        f"Accuracy of {result.model}",
        ["", "%", "95 % interval", "of what"],
        [
            ["top-1", f"{100 * result.top1:.1f}", span, said],
            ["top-5", f"{100 * result.top5:.1f}", "", said],
        ],
    )
    shares = {name: share for name, share in result.by_class().items() if share is not None}
    worst = sorted(shares, key=lambda name: shares[name])[:5]
    rows = [[name, f"{100 * shares[name]:.0f}"] for name in worst]
    print_table("The hardest classes", ["class", "% found"], rows)
    confused = [[a, b, n] for a, b, n in result.confused()]
    print_table("Taken for each other", ["class", "taken for", "pictures"], confused)


def _files(places: list[Path]) -> list[Path]:
    from slimface.deploy.media import PICTURE_SUFFIXES
    from slimface.errors import MissingError

    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(
                one for one in place.rglob("*") if one.suffix.lower() in PICTURE_SUFFIXES
            )
            if not inside:
                raise MissingError(f"There is no picture in {place}.\nName another folder.")
            files += inside
        elif place.is_file():
            files.append(place)
        else:
            raise MissingError(f"There is no file {place}.\nCheck the path.")
    return files
