"""Open the model a command was given, under a bar where it must be downloaded first."""

from typing import TYPE_CHECKING

from slimface.cli.console import progress_bar

if TYPE_CHECKING:
    from slimface.deploy.pipeline import Pipeline


def open_model(source: str, *, threads: int | None = None, device: str = "cpu") -> "Pipeline":
    """As ``slimface.load``, with a progress bar for downloads."""
    from slimface.loading import load

    with progress_bar() as bars:
        task = bars.add_task(f"downloading {source}", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        return load(source, threads=threads, device=device, progress=show)
