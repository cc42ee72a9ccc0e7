"""Accuracy: what a card says about a classifier."""

from collections.abc import Sequence

from slimface.core.accuracy import Accuracy
from slimface.report import quantities
from slimface.report.compare import Row, Tone


def rows(firsts: Sequence[Accuracy], lasts: Sequence[Accuracy]) -> list[Row]:
    """Return top-1 and top-5 before and after; figures of different protocols get no difference."""
    before = firsts[-1] if firsts else None
    after = lasts[-1] if lasts else None
    shown = after or before
    if shown is None:
        return []
    return [
        _row("Top-1", "top1", before, after, shown),
        _row("Top-5", "top5", before, after, shown),
    ]


def notes(lasts: Sequence[Accuracy]) -> list[str]:
    """Return sentences on the hardest class and on what is taken for what."""
    if not lasts:
        return []
    last = lasts[-1]
    shares = {name: share for name, share in last.by_class().items() if share is not None}
    hardest = min(shares, key=lambda name: shares[name])
    said = [f"Hardest class: {hardest}, of which {100 * shares[hardest]:.0f} % are found."]
    said += [f"{a} is taken for {b} on {count} pictures." for a, b, count in last.confused(3)]
    return said


def _row(
    name: str, field: str, before: Accuracy | None, after: Accuracy | None, shown: Accuracy
) -> Row:
    first = None if before is None else float(getattr(before, field))
    last = None if after is None else float(getattr(after, field))
    change: str = ""
    tone: Tone = ""
    if before is not None and after is not None and first is not None and last is not None:
        if before.protocol == after.protocol:
            gain = 100 * (last - first)
            change = f"{quantities.signed(gain)} points"
            tone = "same" if change.startswith("±") else "better" if gain > 0 else "worse"
        else:
            change = "not comparable"
    spread = ""
    if field == "top1" and after is not None:
        spread = f"{100 * after.low:.1f} … {100 * after.high:.1f}"
    return Row(
        name=name,
        before="" if first is None else quantities.points(first),
        after="" if last is None else quantities.points(last),
        change=change,
        tone=tone,
        detail=f"{shown.protocol.truth}, {shown.protocol.pictures} pictures, stamp {shown.stamp}"
        + (f"; 95 % interval {spread}" if spread else ""),
    )
