"""Gather: bring what the steps of a run have left to the top of its folder."""

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import slimface
from slimface.data.folders import ClassSource
from slimface.deploy.media import read_picture
from slimface.files import beside, beside_folder, write_text
from slimface.loading import load
from slimface.model.checkpoint import load_checkpoint
from slimface.recipe.recipe import AnyStep, Recipe
from slimface.report.pictures import save_example

MODEL = "model.safetensors"
EXAMPLES = 6
"""Pictures on the card."""

LEARNING = frozenset({"train", "train_net", "pseudo_label"})
"""Steps that leave a model as it is built. All others that change it make another one of it, and
the card's pictures are from before and after the first of them."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A step that is done: where it stands, and under which fingerprint."""

    step: AnyStep
    folder: Path
    fingerprint: str
    cached: bool


def gather(folder: Path, recipe: Recipe, done: Sequence[Finished], first: Path) -> None:
    """Bring the records and files of the recipe's steps to the top of the run folder."""
    weights = load_checkpoint(first).provenance
    given = {**_machine(), "weights": {"origin": weights.origin, "licence": weights.licence}}
    lines = [_line(0, "start", {"kind": "start", "record": given}, first.parent.name[-12:])]
    for number, finished in enumerate(done, start=1):
        summary = json.loads((finished.folder / "done.json").read_text(encoding="utf-8"))
        kind = finished.step.kind
        lines.append(_line(number, kind, {"kind": "step", "record": summary}, finished.fingerprint))
        lines += [
            _line(number, kind, line, finished.fingerprint) for line in _records(finished.folder)
        ]
        for name in exported_by(finished.folder):
            _bring(finished.folder / name, folder)
    examples = {"pictures": _examples(folder, recipe, done, first)}
    lines.append(_line(len(done), "examples", {"kind": "pictures", "record": examples}, ""))
    write_text(folder / "records.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    _bring(done[-1].folder / MODEL, folder)


def _examples(
    folder: Path, recipe: Recipe, done: Sequence[Finished], first: Path
) -> list[dict[str, Any]]:
    """Find faces on a few pictures, with the model before the first cut and with the last one."""
    if isinstance(recipe.source, ClassSource):
        return []
    models = [first, *(finished.folder / MODEL for finished in done)]
    cut = next((i for i, finished in enumerate(done) if _is_cut(finished.step)), None)
    before = None if cut is None else load(models[cut])
    after = load(models[-1])
    pictures = recipe.source.pictures("val").with_faces()
    count = min(EXAMPLES, len(pictures))
    lines = []
    for one in pictures.subset([i * len(pictures) // count for i in range(count)]):
        picture = read_picture(one.path)
        lines.append(
            save_example(
                folder,
                Path(one.name).stem,
                picture,
                before=before.detect(picture) if before else None,
                after=after.detect(picture),
                truth=one.faces,
            )
        )
    return lines


def _is_cut(step: AnyStep) -> bool:
    return step.terms().changes and step.kind not in LEARNING


def _records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "records.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported_by(folder: Path) -> list[str]:
    """Names of the files that a step's records say it has exported."""
    return [line["record"]["file"] for line in _records(folder) if line["kind"] == "export"]


def _line(step: int, name: str, line: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    return {"step": step, "name": name, "fingerprint": fingerprint, **line}


def _bring(file: Path, folder: Path) -> None:
    if file.is_dir():
        with beside_folder(folder / file.name) as part:
            shutil.copytree(file, part, dirs_exist_ok=True)
        return
    with beside(folder / file.name) as part:
        shutil.copyfile(file, part)


def _machine() -> dict[str, Any]:
    return {
        "slimface": slimface.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
    }
