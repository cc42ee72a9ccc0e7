"""``slimface prune --sensitivity``: how each group takes the loss of its channels."""

from pathlib import Path
from typing import Any

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.run import source_of


def show_sensitivity(
    model: str, importance: dict[str, Any], data: str, out: Path | None, *, as_json: bool
) -> None:
    """Measure the curves, print them, and draw them into ``out`` if that is given."""
    import tempfile

    from slimface.compress.prune.sensitivity import RATES, sensitivities
    from slimface.compress.prune.step import Prune
    from slimface.files import write_text
    from slimface.model import zoo
    from slimface.model.channels import channel_groups
    from slimface.model.checkpoint import load_checkpoint
    from slimface.report.sensitivity import drawn
    from slimface.step import Context

    detector = load_checkpoint(model).detector if Path(model).suffix else zoo.load(model)
    fields = {"importance": importance, "allocator": {"rate": 0.5}, "look": {"batches": 2}}
    step = Prune.parse(fields, where="the command")
    groups = channel_groups(detector)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(folder=Path(folder), source=source_of(data), track=track)
        probe = step.look(context, split="val")
        assert probe is not None  # a command always has a source
        scores = step.score(detector, groups, context)
        found = sensitivities(detector, groups, scores, probe, track=track)
    if out is not None:
        write_text(out, drawn(found))
        diary.print(f"Drawn: {out}")
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rows = [
        [curve.group, curve.size, found.sparkline(curve), *map(found.said, _three(curve.losses))]
        for curve in sorted(found.curves, key=lambda curve: curve.losses[-1:], reverse=True)
    ]
    print_table(
        f"Loss of {model}: {found.whole:.3f}, and its rise when one group alone is silenced",
        ["group", "channels", f"{RATES[0]:.0%} to {RATES[-1]:.0%}", "least", "middle", "most"],
        rows,
        caption="A full bar is a loss of twice the whole model's, or more.",
    )


def _three(losses: tuple[float, ...]) -> tuple[float, ...]:
    return (losses[0], losses[len(losses) // 2], losses[-1]) if losses else ()
