"""``slimface zoo``: the published models, what they cost, and on which terms."""

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap
from typing import Annotated, Any

import typer

from slimface.cli.console import print_json, print_table


def zoo(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the published models: parameters, MACs at 640x480, licence, origin, weights found."""
    from slimface.model.zoo import cost, entries, find

    rows: list[dict[str, Any]] = []
    for entry in entries():
        price = cost(entry.name)
        rows.append(
            {
                "name": entry.name,
                "parameters": price.parameters,
                "macs": price.macs,
                "activation_bytes": price.activation_bytes,
                "licence": entry.licence,
                "origin": entry.origin,
                "note": entry.note,
                "weights_here": all(find(file) is not None for file in entry.files),
                "bytes": sum(file.size for file in entry.files),
            }
        )
    if json:
        print_json({"height": 480, "width": 640, "models": rows})
        return
    print_table(
        "Published models",
        ("name", "parameters", "M MACs", "weights"),
        _lines(rows),
        caption="MACs of convolutions and linear layers at 640x480. Weights that are not here are "
        "fetched when first used.",
    )


def _lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The models of one publisher below his name and terms, so that all fits 80 columns."""
    for (origin, licence), models in groupby(rows, lambda row: (row["origin"], row["licence"])):
        yield (f"{origin}\n{licence}", "", "", "")
        for row in models:
            note = "".join(f"\n    {line}" for line in wrap(row["note"], 36))
            here = "here" if row["weights_here"] else "fetch"
            yield (
                f"  {row['name']}{note}",
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e6:,.1f}",
                here,
            )
