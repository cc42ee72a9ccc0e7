"""Run: what a run folder holds, read without trust and without loss."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimface.errors import DataError, MissingError

log = logging.getLogger(__name__)

RECORDS = "records.jsonl"
RECIPE = "recipe.yaml"
MODEL = "model.safetensors"
KINDS = {
    *("start", "step", "epoch", "prune", "evaluation", "accuracy", "benchmark", "export"),
    *("pictures", "ablation"),
}
"""What a card knows how to show; lines of other kinds only count as steps."""

_MAX_BYTES = 256 * 2**20
_MAX_HEADER = 2**24


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``records.jsonl``: something that was measured, and what measured it."""

    step: int
    """Place of the step in the recipe, from 0; -1 where the line does not say."""

    name: str
    """Name of the step, for people."""

    kind: str
    """What ``record`` holds: ``epoch``, ``prune``, ``evaluation``, ``benchmark``, …"""

    record: Mapping[str, Any]
    fingerprint: str
    """Of everything that led to the model the step returned; empty where the line does not say."""

    seconds: float | None
    command: str
    time: str
    role: str
    """``before`` or ``after`` where the writer said so; empty where the order decides."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder in memory."""

    folder: Path
    entries: tuple[Entry, ...]
    recipe: str
    """The resolved recipe as it stands in the folder; empty if there is none."""

    notes: tuple[str, ...]
    """What could not be read, and why: sentences for people."""

    def of(self, *kinds: str) -> tuple[Entry, ...]:
        """Return the entries of these kinds, oldest first."""
        return tuple(entry for entry in self.entries if entry.kind in kinds)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    A last line that was cut off by a kill is left out and noted; any other broken line is an error,
    because a line that ended was written whole.

    Raises:
        MissingError: There is no such folder, or no records in it.
        DataError: A line of ``records.jsonl`` is not what it should be.
    """
    path = folder / RECORDS
    if not path.is_file():
        what = "has no records.jsonl" if folder.is_dir() else "is not a folder"
        raise MissingError(
            f"{folder}: {what}, so it is not the folder of a run.\n"
            "Name the folder that `slimface run` reported, such as runs/demo."
        )
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size:,} bytes; a card is made of at most {_MAX_BYTES:,}.\n"
            "Check that this is the file slimface wrote."
        )
    entries, notes = _read_lines(path)
    recipe = folder / RECIPE
    if not recipe.is_file():
        notes.append("The folder has no recipe.yaml, so the recipe is not shown.")
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    return Run(folder, tuple(entries), text, tuple(notes))


def _read_lines(path: Path) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    notes: list[str] = []
    content = path.read_bytes()
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, TypeError) as error:
            # Only the last line can lack its line feed, and only a kill leaves it so.
            if number == len(lines):
                notes.append(
                    f"The last line of {RECORDS} (line {number}) was cut off while it was written "
                    "and is left out."
                )
                continue
            raise DataError(
                f"{path}:{number}: not a record ({error}).\n"
                "Remove the line if you know what happened to it, or run the recipe again."
            ) from None
    return entries, notes


def _entry(line: Any) -> Entry:
    if not isinstance(line, dict):
        raise TypeError("a line is a JSON object")
    record = line.get("record")
    if not isinstance(record, dict):
        raise TypeError("the key 'record' must hold a JSON object")
    kind = str(line.get("kind") or "")
    own = str(record.get("kind") or "")
    command = line.get("command") or record.get("command") or ""
    return Entry(
        step=int(line.get("step", -1)),
        name=str(line.get("name") or line.get("kind") or ""),
        kind=own if own in KINDS and kind not in KINDS else kind,
        record=record,
        fingerprint=str(line.get("fingerprint") or ""),
        seconds=number(line.get("seconds")),
        command=command if isinstance(command, str) else " ".join(str(part) for part in command),
        time=str(line.get("time") or ""),
        role=str(line.get("role") or record.get("role") or ""),
    )


def recipe_value(run: Run, key: str) -> str:
    """Return a plain value at the top of the recipe as text; empty if it cannot be read."""
    try:
        import yaml

        value = mapping(yaml.safe_load(run.recipe)).get(key)
    except (ImportError, ValueError, RecursionError) as error:
        log.debug("%s is not read: %s", RECIPE, error)
        return ""
    except yaml.YAMLError as error:
        log.warning("%s is not YAML: %s", run.folder / RECIPE, error)
        return ""
    return str(value) if isinstance(value, str | int | float) else ""


def checkpoint_provenance(folder: Path) -> Mapping[str, Any]:
    """Return what the header of the run's model says of its origin; empty if it says nothing.

    A safetensors file starts with the length of its header, eight bytes, and the header, JSON.
    """
    path = folder / MODEL
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else {}
        provenance = mapping(mapping(header).get("__metadata__")).get("provenance")
        return mapping(json.loads(provenance)) if isinstance(provenance, str) else {}
    except (OSError, ValueError):
        return {}


def number(value: object) -> float | None:
    """Return a finite JSON number as a float, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """Return a JSON array, and an empty one for anything else."""
    return value if isinstance(value, list) else []
