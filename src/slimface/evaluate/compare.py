"""Evaluations side by side, and never two protocols in one column."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slimface.core.record import Evaluation
from slimface.errors import DataError, MissingError, ProtocolError, RecipeError
from slimface.evaluate.bootstrap import Difference, difference

RECORDS = "records.jsonl"
_MAX_BYTES = 256 * 2**20


class Entry(NamedTuple):
    """An evaluation and the file it was read from."""

    evaluation: Evaluation
    path: Path


def read_evaluations(path: Path) -> list[Entry]:
    """Read the evaluations in a file or run folder, in their order.

    Args:
        path: What ``slimface evaluate --out`` wrote, a ``records.jsonl``, or a folder with one.
            Other records in it are passed by.

    Raises:
        MissingError: There is no such file.
        DataError: It is not JSON, an evaluation in it is damaged, or it holds none.
    """
    file = path / RECORDS if path.is_dir() else path
    if not file.is_file():
        raise MissingError(
            f"{file}: there is no such file.\n"
            "Name a file written by `slimface evaluate --out`, or a run folder."
        )
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(
            f"{file} has {file.stat().st_size:,} bytes; records have at most {_MAX_BYTES:,}.\n"
            "Check that this is a file slimface wrote."
        )
    found = [
        Entry(_parse(record, f"{file}:{line}"), file)
        for line, document in _documents(file)
        for record in _evaluations_in(document)
    ]
    if not found:
        raise DataError(
            f"{file}: there is no evaluation in it.\n"
            "Name a file written by `slimface evaluate --out`, or a run folder."
        )
    return found


def by_protocol(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group evaluations whose protocols are equal, in the order of their first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.evaluation.protocol.fingerprint(), []).append(entry)
    return list(groups.values())


def check_same_protocol(entries: Sequence[Entry]) -> None:
    """Refuse evaluations that cannot stand side by side.

    Raises:
        ProtocolError: Two protocols differ; the message names the first field that does.
    """
    for other in entries[1:]:
        found = entries[0].evaluation.protocol.difference(other.evaluation.protocol)
        if found:
            field, mine, theirs = found
            raise ProtocolError(
                f"These figures follow different protocols: {field} is {mine} in "
                f"{entries[0].path}, and {theirs} in {other.path}.\n"
                "Evaluate both by one protocol, or see them in separate tables with --anyway."
            )


def paired_difference(first: Evaluation, second: Evaluation, subset: str) -> Difference | None:
    """Compare two evaluations of one protocol draw by draw.

    Returns:
        Second minus first; None where the bootstrap was left out or the protocols differ.
    """
    if first.protocol != second.protocol:
        return None
    mine, theirs = first.subset(subset).resampled, second.subset(subset).resampled
    if not mine or len(mine) != len(theirs):
        return None
    return difference(np.asarray(mine), np.asarray(theirs))


def _documents(file: Path) -> Iterable[tuple[int, Any]]:
    """The JSON documents of a file and the line each begins in."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        if file.suffix != ".jsonl":
            return [(1, json.loads(text))]
        # A last line without its line feed was cut off by a kill, and nothing else makes one.
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(i, json.loads(line)) for i, line in enumerate(lines, 1) if line.strip()]
    except ValueError as error:
        raise DataError(
            f"{file}: not JSON ({error}).\n"
            "Name a file written by `slimface evaluate --out`, or a run folder."
        ) from None


def _evaluations_in(document: Any) -> Iterable[dict[str, Any]]:
    if isinstance(document, dict):
        if document.get("kind") == "evaluation" and "protocol" in document:
            yield document
        else:
            for part in document.values():
                yield from _evaluations_in(part)
    elif isinstance(document, list):
        for part in document:
            yield from _evaluations_in(part)


def _parse(record: dict[str, Any], where: str) -> Evaluation:
    try:
        return Evaluation.parse(record, where=where)
    except RecipeError as error:
        raise DataError(
            str(error).rpartition("\n")[0]
            + "\nThe file was changed, or written by another version; evaluate again."
        ) from None
