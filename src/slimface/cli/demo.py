"""``slimface demo``: the whole tour in minutes, offline, on drawn faces."""

from pathlib import Path

import typer

from slimface.cli.demo_data import demo_data
from slimface.cli.run import JsonOption, OutOption, WorkersOption, run_command

app = typer.Typer(
    help="The whole tour in minutes, offline, on drawn faces.", invoke_without_command=True
)


@app.callback()
def demo(
    context: typer.Context,
    out: OutOption = None,
    workers: WorkersOption = 1,
    json: JsonOption = False,
) -> None:
    """Draw faces, train, prune, fine-tune, export, check and measure; then write the card."""
    if context.invoked_subcommand is None:
        run_command(Path("demo"), out=out, workers=workers, json=json)


app.command("data")(demo_data)
