"""``slimface prune``: what it removes, and what it says of wrong use."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.data.source import DrawnScenes
from slimface.errors import RecipeError, SlimfaceError, UsageError
from slimface.model import checkpoint, eresfd, mtcnn
from slimface.model.build import build

runner = CliRunner()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    checkpoint.save(build(eresfd.naver(width=4), seed=0), path)
    return str(path)


def test_a_budget_is_met_and_recorded(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DrawnScenes(train=4, val=2, size_px=96)
    monkeypatch.setattr("slimface.cli.prune.source_of", lambda data: few)
    words = ["prune", small, "--allocator", "cost", "--budget", "-40% macs", "--importance", "lamp"]
    done = runner.invoke(
        app, [*words, "--out", str(tmp_path / "run"), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0
    records = json.loads(done.stdout)["records"]
    record = next(entry["record"] for entry in records if entry["kind"] == "prune")
    share = record["after"]["macs"] / record["before"]["macs"]
    assert 0.55 < share <= 0.6
    assert record["allocator"] == "cost" and record["importance"] == "lamp"


def test_what_is_left_is_repaired_and_taught_by_the_whole(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DrawnScenes(train=8, val=2, size_px=96)
    monkeypatch.setattr("slimface.cli.prune.source_of", lambda data: few)
    words = ["prune", small, "--repair", "reconstruct", "--taught", "--epochs", "1", "--size", "64"]
    rest = ["--batch-size", "2", "--out", str(tmp_path / "run"), "--json"]
    done = runner.invoke(app, [*words, *rest], catch_exceptions=False)
    assert done.exit_code == 0
    recipe = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert "frozen_norms: true" in recipe
    (trained,) = (tmp_path / "run" / "steps").glob("02-train-*")
    lines = (trained / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert "teacher_scores" in json.loads(lines[0])["record"]["parts"]


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["--budget", "40% macs"], UsageError, "has a minus"),
        (["--budget", "-40% macs", "--rate", "0.3"], UsageError, "exclude each other"),
        (["--budget", "-30% ms"], UsageError, "in which runtime"),
        (["--allocator", "uniformly"], RecipeError, "uniformly"),
        (["--importance", "l3"], RecipeError, "l3"),
        (["--repair", "magic"], RecipeError, "magic"),
        (["--rate", "1.5"], RecipeError, "rate"),
        (["--explain", "base.conv9.0"], UsageError, "Did you mean 'base.conv"),
    ],
)
def test_wrong_use_is_explained_before_anything_runs(
    small: str, tmp_path: Path, words: list[str], error: type[SlimfaceError], says: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(error, match=says):
        runner.invoke(app, ["prune", small, "--out", str(out), *words], catch_exceptions=False)
    assert not out.exists()


def test_one_net_of_a_cascade_is_pruned_and_the_others_stay(tmp_path: Path) -> None:
    start, out = tmp_path / "whole.safetensors", tmp_path / "run"
    checkpoint.save(build(mtcnn.facenet(), seed=0), start)
    words = ["prune", f"{start}.rnet", "--rate", "0.5", "--out", str(out), "--json"]
    done = runner.invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    cut = checkpoint.load_checkpoint(out / "model.safetensors").network
    widths = {name: len(tensor) for name, tensor in cut.named_parameters() if "conv" in name}
    assert (widths["rnet.conv1.weight"], widths["rnet.conv3.weight"]) == (14, 32)
    assert (widths["pnet.conv1.weight"], widths["onet.conv1.weight"]) == (10, 32)
    with pytest.raises(UsageError, match=r"slimface train RESULT/model.safetensors.rnet"):
        runner.invoke(app, [*words, "--epochs", "2"], catch_exceptions=False)


def test_what_ties_a_layer_is_told(small: str) -> None:
    done = runner.invoke(app, ["prune", small, "--explain", "conf.0"], catch_exceptions=False)
    assert "cannot be cut: each output of conf.0 has a meaning" in done.stdout
    done = runner.invoke(
        app, ["prune", small, "--explain", "base.m0.b2_1", "--json"], catch_exceptions=False
    )
    assert any(len(tie["writers"]) > 2 for tie in json.loads(done.stdout))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--schedule", "sofft"], "one-shot, iterative, soft, fade, lasso"),
        (["--schedule", "fade"], "--epochs 20"),
        (["--reinit"], "--finish 100"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(options: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["prune", "eresfd", *options])
    assert result.exit_code != 0
    assert says in str(result.exception)


@pytest.mark.parametrize(
    ("schedule", "kinds"),
    [
        ("one-shot", ["prune", "train"]),
        ("iterative", ["iterative_prune"]),
        ("soft", ["soft_prune"]),
        ("fade", ["fade_out"]),
        ("lasso", ["train", "prune"]),
    ],
)
def test_each_schedule_is_a_list_of_steps(schedule: str, kinds: list[str]) -> None:
    from slimface.cli.prune import _steps
    from slimface.recipe.recipe import Recipe

    cut = {"kind": "prune", "allocator": {"kind": "uniform", "rate": 0.3}}
    train = {"kind": "train", "schedule": {"epochs": 1}}
    steps = _steps(schedule, cut, train, rounds=2, every=1)
    recipe = Recipe.parse({"name": "x", "steps": steps}, where="the test")
    assert [step.kind for step in recipe.steps] == kinds
