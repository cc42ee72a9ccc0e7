"""Chapters: the figures of a card, each from the records that speak of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from slimface.core.benchmark import Benchmark
from slimface.core.record import Evaluation, SubsetResult
from slimface.report import quantities
from slimface.report.figures import Axis, Series, columns, fitted, lines, skyline, stack
from slimface.report.markup import Html
from slimface.report.run import Entry, Run, mapping, number, sequence
from slimface.report.timing import Couple, title


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its caption and the keys of its colours."""

    title: str
    body: Html
    keys: tuple[tuple[str, str], ...] = ()
    """Tone and name of each colour."""

    words: str = ""
    """What to see in it, or how it was made."""


@dataclass(frozen=True, slots=True)
class Width:
    """A channel group's width before and after."""

    name: str
    before: int
    after: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of the latency chart."""

    tone: str
    body: Html
    words: str
    split: str
    spread: str


_BARS = (("before soft", "before"), ("after", "after"))
"""Tone and name of the two sides of a bar chart."""


def losses(run: Run) -> list[Figure]:
    """Return a chart of the loss for each step that trained."""
    figures = []
    for step in sorted({entry.step for entry in run.of("epoch")}):
        entries = [entry for entry in run.of("epoch") if entry.step == step]
        epochs = {int(number(e.record.get("epoch")) or i): e for i, e in enumerate(entries, 1)}
        curves = _curves(epochs)
        if not curves:
            continue
        marks = sorted(epochs)
        across = Axis("epoch", marks[0], max(marks[-1], marks[0] + 1))
        up = fitted("loss", [y for curve in curves for _, y in curve.points])
        name, first, last = curves[0].name, curves[0].points[0][1], curves[0].points[-1][1]
        words = f"{name} from {first:.3g} to {last:.3g} in {len(marks)} epochs"
        title = _training_title(run, entries[0])
        body = lines(curves, across, up, summary=f"{title}: {words}.")
        keys = tuple((curve.tone, curve.name) for curve in curves)
        figures.append(Figure(title, body, keys, f"{words[0].upper()}{words[1:]}."))
    return figures


def _curves(epochs: dict[int, Entry]) -> list[Series]:
    """Return the loss, the loss on held-out pictures, and the parts of the loss."""
    parts = sorted({name for e in epochs.values() for name in mapping(e.record.get("parts"))})

    def curve(name: str, tone: str, values: dict[int, float | None], *, marked: bool) -> Series:
        points = [(float(epoch), y) for epoch, y in values.items() if y is not None]
        notes = [f"epoch {x:g}: {name} {y:.4g}" for x, y in points] if marked else []
        return Series(name, tone, points, notes)

    def values(key: str) -> dict[int, float | None]:
        return {epoch: number(entry.record.get(key)) for epoch, entry in sorted(epochs.items())}

    found = [
        curve("loss", "after", values("loss"), marked=True),
        curve("held-out loss", "held", values("held_out_loss"), marked=True),
    ]
    for place, part in enumerate(parts[:3], start=1):
        of_part = {n: number(mapping(e.record.get("parts")).get(part)) for n, e in epochs.items()}
        found.append(curve(f"{part} part", f"part{place}", of_part, marked=False))
    return [series for series in found if series.points]


def _training_title(run: Run, entry: Entry) -> str:
    cut = [e.step for e in run.of("prune")]
    kind = "Fine-tuning" if cut and entry.step > min(cut) else "Training"
    return f"{kind} (step {entry.step})" if entry.step >= 0 else kind


def precision_recall(before: Evaluation | None, after: Evaluation | None) -> list[Figure]:
    """Return a chart for each subset with a curve."""
    shown = after or before
    figures = []
    subsets = shown.subsets if shown else ()
    for result in subsets:
        both = [
            (tone, _subset(e, result.name)) for tone, e in (("before", before), ("after", after))
        ]
        series = [
            Series(tone, tone, list(zip(r.curve.recall, r.curve.precision, strict=True)))
            for tone, r in both
            if r is not None and r.curve is not None and r.curve.recall
        ]
        if not series:
            continue
        words = ", ".join(
            f"{tone} {quantities.points(r.average_precision)}"
            for tone, r in both
            if r is not None and r.average_precision is not None
        )
        axes = Axis("recall", 0, 1), Axis("precision", 0, 1)
        title = result.name if len(subsets) > 1 else f"Precision over recall, {result.name} faces"
        body = lines(series, *axes, summary=f"Precision over recall, {result.name}: AP {words}.")
        keys = tuple((line.tone, line.name) for line in series)
        figures.append(Figure(title, body, keys, f"AP {words}; {result.faces:,} faces."))
    return figures


def by_height(before: Evaluation | None, after: Evaluation | None) -> Figure | None:
    """Return the chart of the average precision by the height of the faces."""
    shown = after or before
    names = [result.name for result in shown.by_height if result.faces] if shown else []
    if not names:
        return None
    results = [(_height(before, name), _height(after, name)) for name in names]
    values = [
        tuple(None if r is None else _percent(r.average_precision) for r in p) for p in results
    ]
    ranges = [tuple(_interval(r) for r in pair) for pair in results]
    notes = []
    for name, pair in zip(names, results, strict=True):
        faces = next(r.faces for r in pair if r is not None)
        notes.append(f"{name}, {faces:,} faces: {_in_words(pair)}")
    body = columns(
        [name.replace(" px and more", "+").removesuffix(" px") for name in names],
        values,  # type: ignore[arg-type]
        Axis("AP", 0, 100),
        summary="Average precision by the height of the face in pixels. " + "; ".join(notes) + ".",
        notes=notes,
        ranges=ranges,  # type: ignore[arg-type]
    )
    words = "Height of the face in pixels of the original picture."
    if any(interval for pair in ranges for interval in pair):
        words += " Whiskers: 95 % of bootstrap samples of the pictures."
    keys = tuple(key for key, e in zip(_BARS, (before, after), strict=True) if e and e.by_height)
    return Figure("AP by face height", body, keys, words)


def _in_words(pair: Sequence[SubsetResult | None]) -> str:
    parts = [
        f"{side} {_precision(r.average_precision)}"
        for side, r in zip(("before", "after"), pair, strict=True)
        if r is not None
    ]
    return ", ".join(parts)


def _precision(value: float | None) -> str:
    return "no faces" if value is None else quantities.points(value)


def widths(run: Run) -> tuple[list[Width], list[tuple[str, str]]]:
    """Return the channel groups over all pruning steps, and what was not cut with the reason."""
    first: dict[str, Width] = {}
    uncut: dict[str, str] = {}
    for entry in run.of("prune"):
        for group in map(mapping, sequence(entry.record.get("groups"))):
            before, after = number(group.get("before")), number(group.get("after"))
            if before is None or after is None:
                continue
            name = str(group.get("name", "?"))
            layers = tuple(str(layer) for layer in sequence(group.get("layers")))
            start = first[name].before if name in first else int(before)
            first[name] = Width(name, start, int(after), layers)
        for group in map(mapping, sequence(entry.record.get("uncut"))):
            name = str(group.get("name", "?"))
            wide = number(group.get("size"))
            size = f" ({wide:g} channels)" if wide is not None else ""
            uncut[f"{name}{size}"] = str(group.get("reason") or "no reason was recorded")
    return list(first.values()), list(uncut.items())


def width_figure(run: Run, groups: Sequence[Width]) -> Figure | None:
    """Return the chart of the widths, one column a layer, or a group where no layer was noted."""
    layers = _layer_widths(run)
    if not groups and not layers:
        return None
    before, after = sum(g.before for g in groups), sum(g.after for g in groups)
    words = (
        f"{len(groups)} groups of coupled channels, {before:,} channels before and {after:,} after "
        f"({quantities.relative(before, after)})."
        if before
        else ""
    )
    pairs = layers or [(group.name, group.before, group.after) for group in groups]
    what = f"Channels each of {len(pairs)} {'layers' if layers else 'groups'} puts out"
    body = skyline(pairs, summary=f"{what}, before and after. {words}", label="channels")
    return Figure(f"{what}, from input to output", body, _BARS, words)


def _layer_widths(run: Run) -> list[tuple[str, int, int]]:
    """Return the convolutions with their output channels, in the order of the network."""
    prunes = run.of("prune")
    if not prunes:
        return []
    first, last = (
        {
            str(layer.get("name")): number(next(iter(sequence(layer.get("output"))), None))
            for layer in map(mapping, sequence(mapping(profile).get("layers")))
            if "conv" in str(layer.get("kind", "")).lower()
        }
        for profile in (prunes[0].record.get("before"), prunes[-1].record.get("after"))
    )
    both = [(name, wide, last.get(name)) for name, wide in first.items()]
    return [(n, int(b), int(a)) for n, b, a in both if b is not None and a is not None]


def latency(couples: Sequence[Couple]) -> list[tuple[str, list[Bar]]]:
    """Return for each configuration its title and its bars, before above after."""
    every = [benchmark for couple in couples for benchmark in couple if benchmark is not None]
    full = max((benchmark.total.median_ms for benchmark in every), default=1.0)
    chart = []
    for couple in couples:
        both = [(tone, b) for tone, b in zip(("before", "after"), couple, strict=True) if b]
        chart.append((title(both[0][1]), [_bar(tone, benchmark, full) for tone, benchmark in both]))
    return chart


def _bar(tone: str, benchmark: Benchmark, full: float) -> Bar:
    parts = {
        "pre": benchmark.preprocess.median_ms,
        "network": benchmark.network.median_ms,
        "post": benchmark.postprocess.median_ms,
    }
    total = benchmark.total
    # Medians of parts need not add up to the median of the whole.
    scale = total.median_ms / max(sum(parts.values()), 1e-9)
    return Bar(
        tone=tone,
        body=stack([(f"{tone} {part}", value * scale) for part, value in parts.items()], full),
        words=quantities.milliseconds(total.median_ms),
        split=" + ".join(f"{value:.3g}" for value in parts.values()),
        spread=f"{total.p10_ms:.3g} … {total.p90_ms:.3g}",
    )


def _subset(evaluation: Evaluation | None, name: str) -> SubsetResult | None:
    found = (r for r in (evaluation.subsets if evaluation else ()) if r.name == name)
    return next(found, None)


def _height(evaluation: Evaluation | None, name: str) -> SubsetResult | None:
    found = (r for r in (evaluation.by_height if evaluation else ()) if r.name == name)
    return next(found, None)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _interval(result: SubsetResult | None) -> tuple[float, float] | None:
    if result is None or result.low is None or result.high is None:
        return None
    return 100 * result.low, 100 * result.high
