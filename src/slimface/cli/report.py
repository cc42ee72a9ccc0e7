"""``slimface report``: a run as one page."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from slimface.cli.console import diary


def report(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/demo.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write.  [default: RUN_FOLDER/card.html]")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a run's card: one HTML file with its figures, pictures and lineage."""
    from slimface.report.card import write_card

    path = write_card(run_folder, out)
    typer.echo(path)
    if show and not webbrowser.open(path.resolve().as_uri()):
        diary.print("There is no browser to open the page in; open the file by hand.")
