"""``slimface compare``: stamped results side by side, one protocol a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import print_json, print_table

if TYPE_CHECKING:
    from slimface.core.record import Evaluation
    from slimface.evaluate.compare import Entry


def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Results of `evaluate --out`, or run folders.")
    ],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Different protocols: a table for each.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Put stamped results side by side; those of different protocols are refused."""
    from slimface.evaluate.compare import by_protocol, check_same_protocol, read_evaluations

    entries = [entry for path in files for entry in read_evaluations(path)]
    if not anyway:
        check_same_protocol(entries)
    groups = by_protocol(entries)
    if json:
        print_json([_as_data(group) for group in groups])
        return
    for group in groups:
        _show(group)


def _show(group: "Sequence[Entry]") -> None:
    first = group[0].evaluation
    protocol = first.protocol
    columns = ["model", *(part for r in first.subsets for part in (r.name, f"Δ {r.name}")), "file"]
    rows = []
    for entry in group:
        cells = [entry.evaluation.model]
        for result in entry.evaluation.subsets:
            figure = result.average_precision
            cells.append("?" if figure is None else f"{100 * figure:.1f}")
            cells.append(_change(first, entry.evaluation, result.name))
        rows.append([*cells, str(entry.path)])
    print_table(
        f"{protocol.scope}, {protocol.input}, protocol {first.stamp}",
        columns,
        rows,
        caption="Δ: against the first row, in points, with its 95 % interval over pictures",
    )


def _change(first: "Evaluation", other: "Evaluation", subset: str) -> str:
    from slimface.evaluate.compare import paired_difference

    before, after = first.subset(subset), other.subset(subset)
    if other is first or before.average_precision is None or after.average_precision is None:
        return ""
    text = f"{100 * (after.average_precision - before.average_precision):+.1f}"
    if pairs := paired_difference(first, other, subset):
        text += f" ({100 * pairs.low:+.1f} to {100 * pairs.high:+.1f})"
    return text


def _as_data(group: "Sequence[Entry]") -> dict[str, Any]:
    from slimface.evaluate.compare import paired_difference

    first = group[0].evaluation
    rows = []
    for path, evaluation in ((entry.path, entry.evaluation) for entry in group):
        subsets = {}
        for result in evaluation.subsets:
            pairs = paired_difference(first, evaluation, result.name)
            subsets[result.name] = {
                **result.model_dump(include={"average_precision", "faces", "low", "high"}),
                "against_first": pairs._asdict() if pairs and evaluation is not first else None,
            }
        rows.append({"model": evaluation.model, "file": str(path), "subsets": subsets})
    return {
        "stamp": first.stamp,
        "protocol": first.protocol.model_dump(mode="json"),
        "evaluations": rows,
    }
