"""A search as one page: how it converged, its front, and the rates it came to."""

from pathlib import Path

from slimface.compress.search.result import Finding, Found
from slimface.core.budget import Budget
from slimface.files import write_text
from slimface.report.figures import Axis, Point, Series, fitted, lines, skyline
from slimface.report.markup import Html, join, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SCALES = {"macs": (1e6, "M MACs"), "params": (1e3, "k parameters"), "size": (1e3, "kB")}


def write_search_page(finding: Finding, path: Path) -> None:
    """Write the page of a search; it needs no network and no script.

    Args:
        finding: What was found.
        path: The file to write.
    """
    write_text(path, render(finding))


def render(finding: Finding) -> str:
    """Return the page."""
    style = (Path(__file__).parent / "card.css").read_text(encoding="utf-8")
    title = f"{finding.model}: {', '.join(map(str, finding.budgets))}"
    head = join(
        tag("meta", charset="utf-8"),
        Html('<meta name="viewport" content="width=device-width">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    main = tag(
        "main",
        _figure("Loss of the candidates, and the best so far", _convergence(finding)),
        _figure(f"Loss and {_unit(finding.budgets[0])}", _front(finding)),
        _figure("Channels of each group, before and after", _rates(finding)),
        tag("section", tag("h2", "Finalists"), tag("div", _table(finding), class_="scroll")),
    )
    body = tag("body", tag("header", tag("h1", title), tag("p", _lead(finding))), main)
    return f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"


def _lead(finding: Finding) -> str:
    return (
        f"{len(finding.losses):,} candidates; {_cost(finding, finding.best)}. "
        f"Decided by {finding.decided_by}. The loss is the proxy's: the whole model's is "
        f"{finding.parent_loss:.3f}, the best candidate's {finding.best.loss:.3f}, before training."
    )


def _figure(title: str, plot: Html) -> Html:
    return tag("section", tag("h2", title), tag("figure", plot, class_="chart wide"))


def _convergence(finding: Finding) -> Html:
    losses = finding.losses
    best = [min(losses[: i + 1]) for i in range(len(losses))]
    trials = [float(i + 1) for i in range(len(losses))]
    # A few draws far above the rest would flatten all others.
    top = sorted(losses)[int(0.98 * (len(losses) - 1))]
    up = fitted("loss", [min(best), max(top, best[0])])
    shown = [(x, min(y, up.high)) for x, y in zip(trials, losses, strict=True)]
    dots = [_dot(f"candidate {int(x)}", "before", (x, y)) for x, y in shown]
    curve = Series("best so far", "after", list(zip(trials, best, strict=True)))
    across = Axis("candidates", 0.0, float(max(len(losses), 2)))
    summary = f"The best loss falls from {best[0]:.3f} to {best[-1]:.3f}."
    return lines([*dots, curve], across, up, summary=summary)


def _front(finding: Finding) -> Html:
    budget = finding.budgets[0]
    scale = _SCALES.get(budget.unit, (1.0, budget.unit))[0]
    points = [
        (cost / scale, loss) for cost, loss in zip(finding.points, finding.losses, strict=True)
    ]
    across = fitted(_unit(budget), [x for x, _ in points])
    top = sorted(finding.losses)[int(0.98 * (len(points) - 1))]
    up = fitted("loss", [min(finding.losses), top])
    dots = [_dot("candidate", "before", (x, min(y, up.high))) for x, y in points]
    edge = [(one.costs[0] / scale, min(one.loss, up.high)) for one in finding.front]
    notes = [f"{x:,.4g}: {y:.3f}" for x, y in edge]
    curve = Series("front", "after", edge, notes)
    summary = f"{len(edge)} candidates that no other beats in both."
    return lines([*dots, curve], across, up, summary=summary)


def _dot(name: str, tone: str, point: Point) -> Series:
    return Series(name, tone, [point], [f"{name}: {point[1]:.3f}"])


def _rates(finding: Finding) -> Html:
    pairs = [
        (name, float(size), float(width))
        for name, size, width in zip(
            finding.groups, finding.sizes, finding.best.widths, strict=True
        )
    ]
    return skyline(pairs, summary="The width of each coupled group.", label="channels")


def _table(finding: Finding) -> Html:
    heads = ("candidate", "loss", "after training", finding.scored_by, "costs")
    rows = [
        tag(
            "tr",
            tag("td", str(one.number)),
            tag("td", f"{one.loss:.4f}"),
            tag("td", "" if one.trained_loss is None else f"{one.trained_loss:.4f}"),
            tag("td", "" if one.score is None else f"{one.score:.4f}"),
            tag("td", _cost(finding, one)),
        )
        for one in finding.finalists or (finding.best,)
    ]
    header = tag("thead", tag("tr", *(tag("th", head) for head in heads)))
    return tag("table", header, tag("tbody", *rows))


def _cost(finding: Finding, one: Found) -> str:
    parts = []
    for budget, before, cost in zip(finding.budgets, finding.before, one.costs, strict=True):
        scale = _SCALES.get(budget.unit, (1.0, ""))[0]
        saved = 100 * (1 - cost / before)
        parts.append(f"{cost / scale:,.4g} {_unit(budget)} (−{saved:.1f} %)")
    return ", ".join(parts)


def _unit(budget: Budget) -> str:
    return _SCALES.get(budget.unit, (1.0, budget.unit))[1]
