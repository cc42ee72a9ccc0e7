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
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import slimface
from slimface.core.spec import ModelSpec
from slimface.data.folders import SPLITS as CLASS_SPLITS
from slimface.data.folders import ClassSource
from slimface.deploy.media import read_picture
from slimface.errors import MissingError, UsageError
from slimface.files import beside, beside_folder, write_text
from slimface.loading import CHECKPOINT, COMPOSED, load
from slimface.model import zoo
from slimface.model.backbones.backbone import Backbone
from slimface.model.backbones.pretrained import load_pretrained_
from slimface.model.build import build
from slimface.model.cascade import open_composed
from slimface.model.checkpoint import Provenance, load_checkpoint, save
from slimface.model.checkpoint import fingerprint as model_fingerprint
from slimface.model.detector import Detector
from slimface.model.network import Network
from slimface.recipe import teachers
from slimface.recipe.classes import classifier_spec, is_classifier, start_classifier
from slimface.recipe.recipe import AnyStep, Recipe, write_recipe
from slimface.report.pictures import save_example
from slimface.step import Context

EXAMPLES = 6
"""Pictures on the card."""

PUBLISHED_BACKBONE = "published"
"""``backbone`` of a recipe whose backbone gets the weights that timm or torchvision publish."""

CUTS = (
    "prune", "iterative_prune", "prune_net", "soft_prune", "fade_out", "search", "b_fpgm",
    "soft_search", "shrink",
)  # fmt: skip
"""Steps after which a model is another one: the card's pictures are from before and after."""

SPLITS: tuple[Literal["train"], Literal["val"]] = ("train", "val")


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
    write_text(folder / "recipe.yaml", write_recipe(recipe))
    detector, provenance = start(recipe)
    fingerprint = _fingerprint_of_what_is_given(recipe, detector)
    first = folder / "steps" / f"00-start-{fingerprint[:12]}" / "model.safetensors"
    if not first.exists():
        _make(first.parent)
        save(detector, first, provenance=provenance)
    done: list[Finished] = []
    exported: tuple[Path, ...] = ()
    models = [first]
    for number, step in enumerate(recipe.steps, start=1):
        parent = fingerprint
        fingerprint = _digest(parent, step.model_dump_json(), *teachers.fingerprints(step))
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
                exported=exported,
                **({"track": track} if track else {}),
            )
            given = load_checkpoint(models[-1])
            ready = teachers.found(step, models)
            result, summary = _carry_out(ready, number, given.network, context)
            provenance = given.provenance.model_copy(
                update={"parent": parent, "recipe": recipe.name, "seed": recipe.seed}
            )
            save(result, place / "model.safetensors", provenance=provenance)
            summary |= {"parent": parent, "fingerprint": fingerprint}
            # Last of all: only this file makes the step count as done.
            write_text(place / "done.json", json.dumps(summary, indent=1))
        models.append(place / "model.safetensors")
        exported += tuple(place / name for name in _files(place))
        done.append(Finished(step, place, fingerprint, cached))
    _gather(folder, recipe, done, first)
    return done


def _carry_out(
    step: AnyStep, number: int, network: Any, context: Context
) -> tuple[Network, dict[str, Any]]:
    """Run one step; return its model, and what it was and took."""
    if not (context.folder / "training.state").exists():
        # Records of an attempt that left no state to go on from would appear twice.
        (context.folder / "records.jsonl").unlink(missing_ok=True)
    started, processor = time.monotonic(), time.process_time()
    result = step(network, context)
    return result, {
        "step": number,
        "kind": step.kind,
        "settings": step.model_dump(mode="json"),
        "seconds": round(time.monotonic() - started, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def start(recipe: Recipe) -> tuple[Any, Provenance]:
    """Return the model a recipe starts from, and whose weights it has."""
    if recipe.backbone is not None and recipe.pretrained:
        raise UsageError(
            "ImageNet weights of the backbone were given to a model that has trained weights.\n"
            "Set pretrained to false, or leave backbone out."
        )
    path = Path(recipe.model)
    if COMPOSED.search(recipe.model):
        return open_composed(recipe.model)
    if path.suffix == CHECKPOINT:
        checkpoint = load_checkpoint(path)
        return checkpoint.network, checkpoint.provenance
    if is_classifier(recipe.model):
        return start_classifier(
            recipe.model, recipe.source, pretrained=recipe.pretrained, seed=recipe.seed
        )
    entry = zoo.entry(recipe.model)
    if recipe.pretrained:
        return zoo.load(recipe.model), entry.provenance
    detector = build(entry.spec, seed=recipe.seed)
    if recipe.backbone is not None:
        _give_backbone_(detector, recipe.backbone)
    return detector, Provenance(seed=recipe.seed)


def spec_of(model: str) -> ModelSpec:
    """Return the spec of a name of the zoo or of a checkpoint.

    The classes of a new classifier are only known once there are pictures; these are not they.
    """
    if is_classifier(model):
        return classifier_spec(model, ("one", "other"))
    if COMPOSED.search(model):
        return open_composed(model)[0].spec
    if Path(model).suffix == CHECKPOINT:
        return load_checkpoint(model).spec
    return zoo.entry(model).spec


def _give_backbone_(detector: Detector, source: str) -> None:
    body = getattr(detector, "body", None)
    if not isinstance(body, Backbone):
        raise UsageError(
            f"{detector.spec.name} has no backbone of its own that ImageNet weights are made for.\n"
            "Leave the weights of the backbone out; RetinaFace has backbones."
        )
    load_pretrained_(body, None if source == PUBLISHED_BACKBONE else source)


def _fingerprint_of_what_is_given(recipe: Recipe, detector: Network) -> str:
    source = recipe.source
    if isinstance(source, ClassSource):
        pictures = [source.labelled(split).fingerprint() for split in CLASS_SPLITS]
    else:
        pictures = [source.pictures(split).fingerprint() for split in SPLITS]
    versions = [slimface.__version__, str(torch.__version__), str(recipe.seed)]
    return _digest(model_fingerprint(detector), *pictures, *versions)


def _gather(folder: Path, recipe: Recipe, done: list[Finished], first: Path) -> None:
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
        for name in _files(finished.folder):
            _bring(finished.folder / name, folder)
    examples = {"pictures": _examples(folder, recipe, done, first)}
    lines.append(_line(len(done), "examples", {"kind": "pictures", "record": examples}, ""))
    write_text(folder / "records.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    _bring(done[-1].folder / "model.safetensors", folder)


def _examples(
    folder: Path, recipe: Recipe, done: list[Finished], first: Path
) -> list[dict[str, Any]]:
    """Find faces on a few pictures, with the model before the first cut and with the last one."""
    if isinstance(recipe.source, ClassSource):
        return []
    models = [first, *(finished.folder / "model.safetensors" for finished in done)]
    cut = next((i for i, finished in enumerate(done) if finished.step.kind in CUTS), None)
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


def _records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "records.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _files(folder: Path) -> list[str]:
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


def unfinished(folder: Path) -> Iterable[Path]:
    """Return the steps of a run folder that were begun and not finished."""
    steps = sorted((folder / "steps").glob("*"))
    return [step for step in steps[1:] if not (step / "done.json").exists()]
