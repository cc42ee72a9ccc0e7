"""What every command prints with: tables, JSON, progress."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

T = TypeVar("T")

console = Console(stderr=False, highlight=False)
"""Results: standard output."""

diary = Console(stderr=True, highlight=False)
"""Progress, hints and errors: standard error."""


def print_json(data: Any) -> None:
    """Write ``data`` as JSON to standard output, for other programs."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = ""
) -> None:
    """Write a table to standard output; columns of numbers are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title, caption=caption or None, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(_is_numeric(row[i]) for row in cells if row[i])
        # Names stay whole; what is too long elsewhere goes on in the next line.
        justify: Literal["right", "left"] = "right" if cells and numeric else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=i == 0)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _is_numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-−±<" or cell == "?"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error, with the time that remains."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=diary, transient=not diary.is_terminal) as progress:
        yield progress


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` with a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar() as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)
