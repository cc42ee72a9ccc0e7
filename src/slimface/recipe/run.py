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
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch

import slimface
from slimface.data.folders import SPLITS as CLASS_SPLITS
from slimface.data.folders import ClassSource
from slimface.errors import MissingError
from slimface.files import make_folder, write_text
from slimface.model.checkpoint import fingerprint as model_fingerprint
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.network import Network
from slimface.recipe import cost, teachers
from slimface.recipe.check import check
from slimface.recipe.gather import MODEL, Finished, exported_by, gather
from slimface.recipe.recipe import AnyStep, Recipe, write_recipe
from slimface.recipe.start import start
from slimface.step import Context

_ELSEWHERE = "Choose another place with --out DIR."

SPLITS: tuple[Literal["train"], Literal["val"]] = ("train", "val")


def run(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    steps: Path | None = None,
    track: Callable[..., Any] | None = None,
    announce: Callable[[int, AnyStep, bool], None] = lambda number, step, cached: None,
) -> list[Finished]:
    """Carry out the steps of ``recipe`` whose results ``folder`` does not have yet.

    Args:
        recipe: What to do.
        folder: The run folder; made if it is not there.
        device: Where to train: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: Processes that prepare training pictures.
        steps: Where the steps are kept, which several run folders may share; in ``folder`` if None.
        track: ``track(items, description, total=...)`` iterates over items and draws a bar.
        announce: Called before each step with its number, the step, and whether it is cached.

    Returns:
        The steps, in order.

    Raises:
        RecipeError: The steps make no sense in this order, or not for this model.
        MissingError: The device, the weights or the pictures are not there.
    """
    _check_device(device)
    check(recipe)
    make_folder(folder, _ELSEWHERE)
    write_text(folder / "recipe.yaml", write_recipe(recipe))
    detector, provenance = start(recipe)
    fingerprint = _fingerprint_of_what_is_given(recipe, detector)
    kept = steps or folder / "steps"
    first = kept / f"00-start-{fingerprint[:12]}" / MODEL
    if not first.exists():
        make_folder(first.parent, _ELSEWHERE)
        save(detector, first, provenance=provenance)
    done: list[Finished] = []
    exported: tuple[Path, ...] = ()
    models = [first]
    for number, step in enumerate(recipe.steps, start=1):
        parent = fingerprint
        fingerprint = _digest(parent, step.model_dump_json(), *teachers.fingerprints(step))
        place = kept / f"{number:02d}-{step.kind}-{fingerprint[:12]}"
        cached = (place / "done.json").exists()
        announce(number, step, cached)
        if not cached:
            make_folder(place, _ELSEWHERE)
            context = Context(
                folder=place,
                source=recipe.source,
                seed=recipe.seed,
                device=device,
                workers=workers,
                exported=exported,
                **({"track": track} if track else {}),
            )
            given = load_checkpoint(models[-1])
            ready = teachers.found(step, models)
            result, summary = _carry_out(ready, number, given.network, context)
            provenance = given.provenance.model_copy(
                update={"parent": parent, "recipe": recipe.name, "seed": recipe.seed}
            )
            save(result, place / MODEL, provenance=provenance)
            summary |= {"parent": parent, "fingerprint": fingerprint}
            # Last of all: only this file makes the step count as done.
            write_text(place / "done.json", json.dumps(summary, indent=1))
        models.append(place / MODEL)
        exported += tuple(place / name for name in exported_by(place))
        done.append(Finished(step, place, fingerprint, cached))
    gather(folder, recipe, done, first)
    return done


def _carry_out(
    step: AnyStep, number: int, network: Any, context: Context
) -> tuple[Network, dict[str, Any]]:
    """Run one step; return its model, and what it was and took."""
    if not (context.folder / "training.state").exists():
        # Records of an attempt that left no state to go on from would appear twice.
        (context.folder / "records.jsonl").unlink(missing_ok=True)
    before = cost.footprint(network)
    with cost.Meter(context.folder / "cost.json") as meter:
        result = step(network, context)
    changes = step.terms().changes
    after = cost.footprint(result) if changes else before
    return result, {
        "step": number,
        "kind": step.kind,
        "changes": changes,
        "settings": step.model_dump(mode="json"),
        **cost.summary(meter.spent(), before, after),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _fingerprint_of_what_is_given(recipe: Recipe, detector: Network) -> str:
    source = recipe.source
    if isinstance(source, ClassSource):
        pictures = [source.labelled(split).fingerprint() for split in CLASS_SPLITS]
    else:
        pictures = [source.pictures(split).fingerprint() for split in SPLITS]
    versions = [slimface.__version__, str(torch.__version__), str(recipe.seed)]
    return _digest(model_fingerprint(detector), *pictures, *versions)


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


def unfinished(folder: Path) -> Iterable[Path]:
    """Return the steps of a run folder that were begun and not finished."""
    steps = sorted((folder / "steps").glob("*"))
    return [step for step in steps[1:] if not (step / "done.json").exists()]
