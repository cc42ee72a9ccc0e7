"""Run: carry a recipe out, repeat nothing, lose nothing.

A run folder holds

    recipe.yaml         the recipe with every default spelt out
    steps/<fingerprint> one folder a step: its model, its records, its files
    records.jsonl       the records of this recipe's steps, in order
    model.safetensors   the last step's model
    pictures/           examples, before and after

A step's fingerprint covers everything that led to it: the model it started from, the pictures,
the seed, the versions, and the steps before it. A finished step of the same fingerprint is taken
as it is; one that was killed goes on where it stopped.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import slimface
from slimface.errors import MissingError, UsageError
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.detector import Detector
from slimface.recipe.recipe import AnyStep, Recipe, write_recipe
from slimface.step import Context

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """A step that is done: where it stands, and under which fingerprint."""

    step: AnyStep
    folder: Path
    fingerprint: str
    cached: bool


def run(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    track: Callable[..., Any] | None = None,
    announce: Callable[[int, AnyStep, bool], None] = lambda number, step, cached: None,
) -> list[Finished]:
    """Carry out the steps of ``recipe`` whose results ``folder`` does not have yet.

    Args:
        recipe: What to do.
        folder: The run folder; made if it is not there.
        device: Where to train: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: Processes that prepare training pictures.
        track: ``track(items, description, total=...)`` iterates over items and draws a bar.
        announce: Called before each step with its number, the step, and whether it is cached.

    Returns:
        The steps, in order.
    """
    _check_device(device)
    _make(folder)
    _write(folder / "recipe.yaml", write_recipe(recipe))
    detector, fingerprint = _start(recipe)
    first = folder / "steps" / f"00-start-{fingerprint[:12]}" / "model.safetensors"
    if not first.exists():
        _make(first.parent)
        save(detector, first)
    done: list[Finished] = []
    model_at = first
    for number, step in enumerate(recipe.steps, start=1):
        parent = fingerprint
        fingerprint = _digest(parent, step.model_dump_json())
        place = folder / "steps" / f"{number:02d}-{step.kind}-{fingerprint[:12]}"
        cached = (place / "done.json").exists()
        announce(number, step, cached)
        if not cached:
            _make(place)
            context = Context(
                folder=place,
                source=recipe.source,
                seed=recipe.seed,
                device=device,
                workers=workers,
                **({"track": track} if track else {}),
            )
            _carry_out(
                step, number, load_checkpoint(model_at).detector, context, parent, fingerprint
            )
        model_at = place / "model.safetensors"
        done.append(Finished(step, place, fingerprint, cached))
    _gather(folder, done, first)
    return done


def _carry_out(
    step: AnyStep,
    number: int,
    detector: Detector,
    context: Context,
    parent: str,
    fingerprint: str,
) -> None:
    """Run one step and mark its folder as done, last of all."""
    if not (context.folder / "training.state").exists():
        # Records of an attempt that left no state to go on from would appear twice.
        (context.folder / "records.jsonl").unlink(missing_ok=True)
    started, processor = time.monotonic(), time.process_time()
    result = step(detector, context)
    provenance = {"parent": parent, "fingerprint": fingerprint, "step": step.kind}
    save(result, context.folder / "model.safetensors", provenance=provenance)
    summary = {
        "step": number,
        "kind": step.kind,
        "settings": step.model_dump(mode="json"),
        "parent": parent,
        "fingerprint": fingerprint,
        "seconds": round(time.monotonic() - started, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write(context.folder / "done.json", json.dumps(summary, indent=1))


def _start(recipe: Recipe) -> tuple[Detector, str]:
    """Return the model the recipe starts from, and the fingerprint of all that is given."""
    path = Path(recipe.model)
    if path.suffix == ".safetensors" or path.exists():
        detector = load_checkpoint(path).detector
    elif recipe.pretrained:
        detector = zoo.load(recipe.model)
    else:
        detector = build(zoo.spec(recipe.model), seed=recipe.seed)
    digest = hashlib.sha256(detector.spec.fingerprint().encode())
    for name, tensor in sorted(detector.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    pictures = [recipe.source.pictures(split).fingerprint() for split in ("train", "val")]
    versions = [slimface.__version__, torch.__version__, str(recipe.seed)]
    return detector, _digest(digest.hexdigest(), *pictures, *versions)


def _gather(folder: Path, done: list[Finished], first: Path) -> None:
    """Bring the records and files of the recipe's steps to the top of the run folder."""
    lines = [
        _line(0, "start", {"kind": "start", "record": _machine()}, first.parent.name[-12:]),
    ]
    for number, finished in enumerate(done, start=1):
        summary = json.loads((finished.folder / "done.json").read_text(encoding="utf-8"))
        kind = finished.step.kind
        lines.append(_line(number, kind, {"kind": "step", "record": summary}, finished.fingerprint))
        records = finished.folder / "records.jsonl"
        if records.exists():
            for text in records.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                if "file" in line["record"]:
                    _bring(finished.folder / line["record"]["file"], folder)
                lines.append(_line(number, kind, line, finished.fingerprint))
    _write(folder / "records.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    _bring(done[-1].folder / "model.safetensors", folder)


def _line(step: int, name: str, line: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    return {"step": step, "name": name, "fingerprint": fingerprint, **line}


def _bring(file: Path, folder: Path) -> None:
    beside = folder / (file.name + ".partial")
    shutil.copyfile(file, beside)
    beside.replace(folder / file.name)


def _machine() -> dict[str, Any]:
    return {
        "slimface": slimface.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
    }


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MissingError(
            f"The device '{device}' is not usable: {str(error).splitlines()[0]}\n"
            "Use --device cpu, or one that `python -c 'import torch; print(torch.cuda."
            "is_available())'` confirms."
        ) from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: the folder cannot be made ({error.strerror}).\n"
            "Choose another place with --out DIR."
        ) from error


def _write(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def unfinished(folder: Path) -> Iterable[Path]:
    """Return the steps of a run folder that were begun and not finished."""
    steps = sorted((folder / "steps").glob("*"))
    return [step for step in steps[1:] if not (step / "done.json").exists()]
