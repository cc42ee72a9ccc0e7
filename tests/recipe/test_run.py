import json
from pathlib import Path

import pytest
import torch

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.step import Prune
from slimface.core.record import Original
from slimface.data.source import DrawnScenes
from slimface.errors import MissingError, RecipeError
from slimface.evaluate.step import Evaluate
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.checkpoint import load_checkpoint, save
from slimface.recipe.recipe import AnyStep, Recipe
from slimface.recipe.run import run, unfinished
from slimface.report.card import write_card
from slimface.train.schedule import Schedule
from slimface.train.step import Train

SOURCE = DrawnScenes(train=24, val=6, size_px=96)
LEARN = Train(schedule=Schedule(epochs=2, batch_size=4, ema=0.9), size_px=64, holdout=0.1)
CUT = Prune(allocator=Uniform(rate=0.5), height_px=96, width_px=96)
SCORE = Evaluate(input=Original())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFACE_HOME", str(home))


@pytest.fixture(scope="module")
def parent(home: Path) -> Path:
    """A detector small enough to train in a second, as a checkpoint."""
    spec = zoo.entry("eresfd").spec
    narrow = spec.model_copy(
        update={"architecture": spec.architecture.model_copy(update={"options": {"width": 4}})}
    )
    path = home / "narrow.safetensors"
    save(build(narrow, seed=0), path)
    return path


def recipe(parent: Path, *steps: AnyStep) -> Recipe:
    return Recipe(name="small", model=str(parent), source=SOURCE, steps=steps)


def same_model(first: Path, second: Path) -> bool:
    one, other = (load_checkpoint(path).detector.state_dict() for path in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_leaves_a_model_records_and_a_card(parent: Path, tmp_path: Path) -> None:
    run(recipe(parent, SCORE, CUT, LEARN, SCORE), tmp_path, workers=0)
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "start" and kinds.count("evaluation") == 2 and kinds.count("epoch") == 2
    assert (tmp_path / "recipe.yaml").exists()
    parameters = [
        sum(p.numel() for p in load_checkpoint(path).detector.parameters())
        for path in (parent, tmp_path / "model.safetensors")
    ]
    assert parameters[1] < parameters[0]
    page = write_card(tmp_path).read_text()
    assert "small" in page and "://" not in page.replace("http://www.w3.org", "")


def test_what_is_done_is_not_repeated(parent: Path, tmp_path: Path) -> None:
    first = run(recipe(parent, CUT, SCORE), tmp_path, workers=0)
    again = run(recipe(parent, CUT, SCORE), tmp_path, workers=0)
    assert [step.cached for step in first] == [False, False]
    assert [step.cached for step in again] == [True, True]


def test_a_changed_step_repeats_itself_and_what_follows(parent: Path, tmp_path: Path) -> None:
    run(recipe(parent, CUT, SCORE), tmp_path, workers=0)
    finer = Evaluate(input=Original(), score_floor=0.2)
    again = run(recipe(parent, CUT, finer), tmp_path, workers=0)
    assert [step.cached for step in again] == [True, False]


def test_other_pictures_are_another_run(parent: Path, tmp_path: Path) -> None:
    run(recipe(parent, CUT), tmp_path, workers=0)
    other = recipe(parent, CUT).model_copy(update={"source": SOURCE.model_copy(update={"val": 7})})
    assert not run(other, tmp_path, workers=0)[0].cached


class Kill(BaseException):
    """What a signal does."""


def test_a_killed_run_goes_on_and_ends_the_same(parent: Path, tmp_path: Path) -> None:
    plan = recipe(parent, CUT, LEARN)
    run(plan, tmp_path / "whole", workers=0)

    seen = 0

    def dying(items, description, total=None):
        nonlocal seen
        for item in items:
            yield item
            seen += 1
            if seen == 8:  # in the second epoch, of five batches each
                raise Kill

    with pytest.raises(Kill):
        run(plan, tmp_path / "killed", workers=0, track=dying)
    assert [step.name[:8] for step in unfinished(tmp_path / "killed")] == ["02-train"]
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    done = run(plan, tmp_path / "killed", workers=0)
    assert [step.cached for step in done] == [True, False]
    assert same_model(*(tmp_path / n / "model.safetensors" for n in ("whole", "killed")))
    epochs = [
        json.loads(line)["record"]["epoch"]
        for line in (done[1].folder / "records.jsonl").read_text().splitlines()
    ]
    assert epochs == [1, 2]


def test_an_evaluation_of_a_file_needs_an_export_before_it(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="export step before"):
        run(recipe(parent, Evaluate(of="file")), tmp_path, workers=0)


def test_a_device_that_is_not_there_is_refused_first(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cuda:7"):
        run(recipe(parent, CUT), tmp_path / "new", device="cuda:7")
    assert not (tmp_path / "new").exists()
