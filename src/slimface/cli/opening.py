"""Open the model a command was given, under a bar where it must be downloaded first."""

from typing import TYPE_CHECKING

from slimface.cli.console import progress_bar

if TYPE_CHECKING:
    from slimface.deploy.pipeline import Pipeline


def open_model(
    source: str,
    *,
    threads: int | None = None,
    device: str = "cpu",
    min_face: float | None = None,
    proposals: int | None = None,
) -> "Pipeline":
    """As ``slimface.load``, with a progress bar for downloads.

    Args:
        source: Name or file.
        threads: Threads to compute with.
        device: Where torch computes.
        min_face: Height in pixels of the smallest face that a cascade looks for.
        proposals: Most boxes that go on at each step of a cascade.

    Raises:
        UsageError: ``min_face`` or ``proposals`` is for another model than a cascade.
    """
    from slimface.deploy.cascade import Cascade
    from slimface.errors import UsageError
    from slimface.loading import load

    with progress_bar() as bars:
        task = bars.add_task(f"downloading {source}", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        model = load(source, threads=threads, device=device, progress=show)
    if min_face is None and proposals is None:
        return model
    if not isinstance(model, Cascade):
        option = "--min-face" if min_face is not None else "--proposals"
        raise UsageError(
            f"{source} sees faces of all sizes at once; {option} is for cascades.\n"
            "Leave it out; --scale or --longest make a detector faster."
        )
    return model.looking_for(min_face_px=min_face, proposals=proposals)
