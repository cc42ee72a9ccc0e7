"""``slimface doctor``: broken annotations and pictures, found and left out."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.run import JsonOption
from slimface.errors import DataError

if TYPE_CHECKING:
    from slimface.data.doctor import Examination

MAX_LINES = 50
"""Findings that get a line, without --all; each kind has its share."""


def doctor(
    folder: Annotated[
        Path, typer.Argument(help="Folder in the layout of WIDER FACE or of RetinaFace.")
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Write NAME.repaired.txt beside each file of annotations."),
    ] = False,
    val_list: Annotated[
        bool, typer.Option("--val-list", help="Write wider_val.txt, the paths of val's pictures.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Show every finding, not the first few of each kind.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Pictures decoded at a time.")] = 1,
    json: JsonOption = False,
) -> None:
    """Find what is broken in annotations and pictures; fails if anything is.

    Originals are never changed.
    """
    from slimface.data.doctor import examine, write_list, write_repaired

    examination = examine(folder, workers=workers, track=track)
    written = write_repaired(examination) if repair else []
    if val_list:
        written.append(write_list(examination))
    if json:
        print_json(_as_json(examination, written))
    else:
        _show(examination, every=every)
    for path in written:
        diary.print(f"Written: {path}", soft_wrap=True)
    if examination.broken and not repair:
        raise DataError(
            f"{examination.broken} of {len(examination.findings)} findings stop or spoil a "
            "training.\nCorrect the lines named, or run it again with --repair and use the "
            "repaired copies."
        )


def _as_json(examination: "Examination", written: list[Path]) -> dict[str, Any]:
    from slimface.data.doctor import RULES

    return {
        "pictures": examination.pictures,
        "faces": examination.faces,
        "broken": examination.broken,
        "findings": [
            {
                "rule": finding.rule,
                "broken": RULES[finding.rule].broken,
                "file": str(finding.file),
                "line": finding.line or None,
                "picture": finding.picture,
                "what": finding.what,
            }
            for finding in examination.findings
        ],
        "written": [str(path) for path in written],
    }


def _show(examination: "Examination", *, every: bool) -> None:
    from slimface.data.doctor import RULES

    counts = Counter(finding.rule for finding in examination.findings)
    title = f"{examination.pictures} pictures, {examination.faces} faces: findings"
    rows = [
        [rule, counts[rule], "broken" if meaning.broken else "note", meaning.repair or "kept"]
        for rule, meaning in RULES.items()
        if counts[rule]
    ]
    print_table(title, ["rule", "count", "", "in a repaired copy"], rows)
    most = max(1, MAX_LINES // max(1, len(counts)))
    shown = Counter[str]()
    for finding in examination.findings:
        shown[finding.rule] += 1
        if every or shown[finding.rule] <= most:
            # As compilers do: editors jump to such lines.
            typer.echo(f"{finding.place}: {finding.rule}: {finding.what}")
    left = 0 if every else sum(max(0, count - most) for count in counts.values())
    if left:
        diary.print(f"{left} more: --all, or --json")
