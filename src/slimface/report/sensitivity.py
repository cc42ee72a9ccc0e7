"""Sensitivity curves as one picture that stands alone."""

from slimface.compress.prune.sensitivity import Curve, Sensitivities
from slimface.report.markup import Html, join, tag

_COLUMNS = 6
_WIDTH, _HEIGHT = 160, 90
_CAPTION_HEIGHT = 24
_CAPTION = (
    "Across: share of the group's channels that is silent, 0 to 1. "
    "Up: rise of the loss on validation pictures, from 0 to the whole model's loss and no further."
)
_PLOT_TOP, _PLOT_HEIGHT, _PLOT_WIDTH = 20, 60, 140


def drawn(found: Sensitivities) -> str:
    """Return an SVG with a small chart for each group, all on one scale.

    Across: the share of the channels that is silent, 0 to 1. Up: the rise of the loss, from none to
    the whole model's loss, where curves are cut off.
    """
    charts = [_chart(found, curve, i) for i, curve in enumerate(found.curves)]
    rows = -(-len(charts) // _COLUMNS)
    height = max(rows, 1) * _HEIGHT + _CAPTION_HEIGHT
    return tag(
        "svg",
        *charts,
        tag("text", _CAPTION, x=10, y=height - 8, fill="#555"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_COLUMNS * _WIDTH} {height}",
        font_family="sans-serif",
        font_size="9",
    )


def _chart(found: Sensitivities, curve: Curve, number: int) -> Html:
    x, y = number % _COLUMNS * _WIDTH + 10, number // _COLUMNS * _HEIGHT
    bottom = _PLOT_TOP + _PLOT_HEIGHT
    rises = [(loss - found.whole) / max(found.whole, 1e-12) for loss in curve.losses]
    spots = [(0.0, 0.0), *zip(curve.rates, rises, strict=True)]
    line = " ".join(
        f"{rate * _PLOT_WIDTH:.1f},{bottom - min(max(rise, 0), 1) * _PLOT_HEIGHT:.1f}"
        for rate, rise in spots
    )
    title = f"{curve.group} ({curve.size})"
    shown = title if len(title) <= 28 else "…" + title[-27:]
    return tag(
        "g",
        join(
            tag("title", title),
            tag("text", shown, x=0, y=12, fill="#555"),
            tag("path", d=f"M0 {_PLOT_TOP}V{bottom}H{_PLOT_WIDTH}", fill="none", stroke="#bbb"),
            tag("polyline", points=line, fill="none", stroke="#0a6", stroke_width="1.5"),
        ),
        transform=f"translate({x} {y})",
    )
