"""Figures: charts as markup that follows the page's colours and the reader's screen.

The plot is an SVG that stretches with the page; its labels are text beside it, so they keep their
size on a phone. Colours are the classes ``before``, ``after`` and so on, which the page's style
defines for light, dark and paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimface.report.markup import Html, join, tag

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart."""

    name: str
    tone: str
    """Class of the page's style that colours it: ``before``, ``after``, ``part1``, …"""

    points: Sequence[Point]
    notes: Sequence[str] = ()
    """What a point says when pointed at; empty for a line without marks."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values with a label; ``unit`` follows each number."""

    label: str
    low: float
    high: float
    unit: str = ""

    def place(self, value: float) -> float:
        """Return where ``value`` lies between the ends, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about ``count`` round numbers from end to end."""
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def fitted(label: str, values: Sequence[float], *, zero: bool = False, unit: str = "") -> Axis:
    """Return an axis that holds all ``values`` and ends on round numbers."""
    low, high = min(values), max(values)
    if zero or (low >= 0 and low < 0.4 * high):
        low = min(low, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Rounding the ends outwards can make the step larger, and with it what counts as round.
    step = 0.0
    while step != (step := _round_step((high - low) / 5)):
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Axis(label, low, high, unit)


def lines(series: Sequence[Series], across: Axis, up: Axis, *, summary: str) -> Html:
    """Draw lines over two axes; ``summary`` says in words what they show."""
    drawn = []
    for line in series:
        spots = [(across.place(x), 100 - up.place(y)) for x, y in line.points]
        path = "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in _thinned(spots))
        drawn.append(tag("path", d=path, class_=f"line {line.tone}"))
        for (x, y), note in zip(spots, line.notes, strict=False):
            dot = f"M{x:.4g} {y:.4g}h0"
            drawn.append(tag("path", tag("title", note), d=dot, class_=f"dot {line.tone}"))
    return _plot(join(*drawn), across, up, summary)


def columns(
    names: Sequence[str],
    pairs: Sequence[tuple[float | None, float | None]],
    up: Axis,
    *,
    summary: str,
    notes: Sequence[str],
    ranges: Sequence[tuple[Point | None, Point | None]] = (),
) -> Html:
    """Draw for each name the value before and the value after side by side."""
    drawn = []
    slot = 100 / len(names)
    for i, ((before, after), note) in enumerate(zip(pairs, notes, strict=True)):
        known = [(v, t) for v, t in ((before, "before"), (after, "after")) if v is not None]
        bars = []
        width = 0.62 * slot / 2
        for value, tone in known:
            x = slot * (i + 0.5) + (-width if tone == "before" else 0)
            x += width / 2 if len(known) == 1 and tone == "before" else 0
            x -= width / 2 if len(known) == 1 and tone == "after" else 0
            height = up.place(value)
            bars.append(_bar(x, 100 - height, width * 0.94, height, tone))
            interval = ranges[i][0 if tone == "before" else 1] if ranges else None
            if interval:
                top, foot = (100 - up.place(end) for end in interval)
                middle = x + width * 0.47
                whisker = f"M{middle:.4g} {foot:.4g}V{top:.4g}"
                bars.append(tag("path", d=whisker, class_="whisker"))
        hit = tag("rect", x=_f(slot * i), y=0, width=_f(slot), height=100, class_="hit")
        drawn.append(tag("g", hit, *bars, tag("title", note)))
    labels = [(slot * (i + 0.5), name) for i, name in enumerate(names)]
    return _plot(join(*drawn), None, up, summary, labels)


def skyline(pairs: Sequence[tuple[str, float, float]], *, summary: str, label: str) -> Html:
    """Draw one column a layer: its width before as an outline, its width after filled."""
    up = fitted(label, [max(before, after) for _, before, after in pairs], zero=True)
    slot = 100 / len(pairs)
    gap = slot * 0.16
    drawn = []
    for i, (name, before, after) in enumerate(pairs):
        x, width = slot * i + gap / 2, slot - gap
        drawn.append(
            tag(
                "g",
                _bar(x, 100 - up.place(before), width, up.place(before), "before"),
                _bar(x, 100 - up.place(after), width, up.place(after), "after"),
                tag("title", f"{name}: {before:g} → {after:g}"),
            )
        )
    return _plot(join(*drawn), None, up, summary, [(0, "input"), (100, "output")])


def stack(parts: Sequence[tuple[str, float]], full: float) -> Html:
    """Draw one horizontal bar of parts; ``full`` is the value that fills the whole width."""
    drawn = []
    x = 0.0
    for tone, value in parts:
        width = 100 * value / full
        drawn.append(tag("rect", x=_f(x), y=0, width=_f(width), height=10, class_=f"bar {tone}"))
        x += width
    return tag(
        "svg",
        *drawn,
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="stack",
        aria_hidden="true",
    )


def _plot(
    drawn: Html,
    across: Axis | None,
    up: Axis,
    summary: str,
    labels: Sequence[tuple[float, str]] = (),
) -> Html:
    rules = "".join(f"M0 {100 - up.place(tick):.4g}H100" for tick in up.ticks())
    if across:
        labels = [(across.place(tick), _number(tick, across)) for tick in across.ticks()]
    svg = tag(
        "svg",
        tag("path", d=rules, class_="rule"),
        drawn,
        tag("path", d="M0 100H100", class_="axis"),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
    )
    heights = [
        tag("span", _number(tick, up), style=f"bottom:{up.place(tick):.4g}%") for tick in up.ticks()
    ]
    places = [tag("span", text, style=f"left:{place:.4g}%") for place, text in labels]
    return tag(
        "div",
        tag("div", up.label, class_="unit"),
        tag("div", *heights, class_="up"),
        svg,
        tag("div", *places, class_="across"),
        tag("div", across.label if across else "", class_="unit below"),
        class_="plot",
        role="img",
        aria_label=summary,
    )


def _bar(x: float, y: float, width: float, height: float, tone: str) -> Html:
    return tag(
        "rect",
        x=_f(x),
        y=_f(y),
        width=_f(width),
        height=_f(max(height, 0)),
        class_=f"bar {tone}",
    )


def _f(value: float) -> str:
    return f"{value:.4g}"


def _number(value: float, axis: Axis) -> str:
    step = _round_step((axis.high - axis.low) / 5)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:,.{digits}f}".replace("-", "−")
    return f"{text}{axis.unit}"


def _round_step(step: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten from ``step`` upwards."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= step * (1 - 1e-9))


def _thinned(spots: Sequence[Point], distance: float = 0.35) -> list[Point]:
    """Leave out points nobody can tell apart; the ends stay."""
    kept = [spots[0]]
    for x, y in spots[1:-1]:
        if abs(x - kept[-1][0]) >= distance or abs(y - kept[-1][1]) >= distance:
            kept.append((x, y))
    return kept + list(spots[1:][-1:])
