import itertools
import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from slimface.compress.prune.allocate import Allocator, CostAware, Global, PerGroup, Uniform
from slimface.compress.prune.importance import L1
from slimface.compress.prune.iterative import IterativePrune
from slimface.compress.prune.step import Prune
from slimface.core.budget import parse_budget
from slimface.errors import BudgetError, UsageError
from slimface.model.channels import channel_groups
from slimface.step import Context
from tests.compress.schedules import TRAIN, KilledError, context, dies_at, start

SHORT = TRAIN.model_copy(update={"schedule": TRAIN.schedule.model_copy(update={"epochs": 1})})


def step(allocator: Allocator, rounds: int = 3, **more: object) -> IterativePrune:
    prune = Prune(importance=L1(), allocator=allocator)
    return IterativePrune(prune=prune, train=SHORT, rounds=rounds, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("allocator", "rise"),
    [
        (Uniform(rate=0.4), "linear"),
        (PerGroup(rates={"base.conv1": 0.5, "base.m0": 0.25}), "cubic"),
        (Uniform(budget=parse_budget("4k params")), "linear"),
    ],
)
def test_after_the_rounds_exactly_as_much_is_gone_as_after_one_cut(
    allocator: Allocator, rise: str, tmp_path: Path
) -> None:
    detector = start()
    gradual = step(allocator, rise=rise)(detector, context(tmp_path / "rounds"))
    at_once = Prune(importance=L1(), allocator=allocator)(detector, context(tmp_path / "once"))
    want = {name: tensor.shape for name, tensor in at_once.state_dict().items()}
    assert {name: tensor.shape for name, tensor in gradual.state_dict().items()} == want


def test_each_round_removes_some_and_what_is_gone_stays_gone(tmp_path: Path) -> None:
    detector = start(8)
    step(Global(rate=0.3))(detector, context(tmp_path))
    left = [json.loads((tmp_path / f"round-{i:02d}" / "done.json").read_text()) for i in (1, 2, 3)]
    whole = sum(group.size for group in channel_groups(detector))
    counts = [whole, *(sum(len(kept) for kept in one.values()) for one in left)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4
    for before, after in itertools.pairwise(left):
        assert all(set(after[name]) <= set(before[name]) for name in after)
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [line["record"]["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3]
    cut = lines[-1]["record"]
    assert lines[-1]["kind"] == "prune"
    assert cut["after"]["parameters"] == cut["predicted"]["parameters"]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path, batch: int) -> None:
    plan = step(CostAware(budget=parse_budget("-40% macs")), rounds=2)
    want = plan(start(), context(tmp_path / "whole"))
    with pytest.raises(KilledError):
        plan(start(), context(tmp_path / "killed", track=dies_at(batch)))
    found = plan(start(), context(tmp_path / "killed"))
    for name, tensor in want.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_a_finished_round_is_not_repeated(tmp_path: Path) -> None:
    plan = step(Uniform(rate=0.5), rounds=2)
    with pytest.raises(KilledError):
        plan(start(), context(tmp_path, track=dies_at(2)))
    first = tmp_path / "round-01" / "model.safetensors"
    written = first.stat().st_mtime_ns
    plan(start(), context(tmp_path))
    assert first.stat().st_mtime_ns == written


def test_a_budget_out_of_reach_is_refused_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="out of reach"):
        step(Uniform(budget=parse_budget("-99.9% macs")))(start(), context(tmp_path))
    assert not list(tmp_path.iterdir())


def test_absolute_milliseconds_cannot_be_divided_into_rounds() -> None:
    budget = parse_budget("5ms@onnxruntime:1t:640x480")
    with pytest.raises((ValidationError, BudgetError), match="ms"):
        step(Uniform(budget=budget))


def test_without_pictures_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        step(Uniform(rate=0.5))(start(), Context(folder=tmp_path))
