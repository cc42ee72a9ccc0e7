"""``slimface compare``: stamped results side by side, one protocol a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import print_json, print_table
from slimface.cli.run import JsonOption

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
    json: JsonOption = False,
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
    rows = [
        [
            f"{entry.evaluation.model}\n{entry.path.name}",
            *(_cell(first, entry.evaluation, result.name) for result in first.subsets),
        ]
        for entry in group
    ]
    print_table(
        f"{first.protocol.scope}, {first.protocol.input}, protocol {first.stamp}",
        ["model", *(result.name for result in first.subsets)],
        rows,
        caption="Below: points against the first row (95 % interval over pictures)"
        if len(group) > 1
        else "",
    )


def _cell(first: "Evaluation", other: "Evaluation", subset: str) -> str:
    from slimface.evaluate.compare import paired_difference

    before = first.subset(subset).average_precision
    after = other.subset(subset).average_precision
    if after is None:
        return "?"
    text = f"{100 * after:.1f}"
    if other is first or before is None:
        return text
    text += f"\n{100 * (after - before):+.1f}"
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
