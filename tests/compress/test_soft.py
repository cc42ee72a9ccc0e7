import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.importance import L1
from slimface.compress.prune.soft import SoftPrune
from slimface.compress.prune.step import Prune
from slimface.compress.shrink.step import Shrink
from slimface.core.budget import parse_budget
from slimface.data.source import DrawnScenes
from slimface.errors import BudgetError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.step import Context
from slimface.train.schedule import Schedule
from slimface.train.step import Train

SOURCE = DrawnScenes(train=4, val=2, size_px=96)
STEP = SoftPrune(
    train=Train(
        schedule=Schedule(epochs=3, batch_size=2, learning_rate=1e-3), size_px=64, holdout=0
    ),
    prune=Prune(importance=L1(), allocator=Uniform(rate=0.5)),
)


class KilledError(Exception):
    pass


def start() -> Detector:
    return build(eresfd.naver(width=4), seed=0)


def dies_in_epoch(number: int, after: int) -> Any:
    def track(items: Iterable[Any], description: str, total: int | None = None) -> Iterable[Any]:
        for i, item in enumerate(items):
            if description == f"epoch {number}" and i == after:
                raise KilledError
            yield item

    return track


def test_filters_are_zeroed_between_epochs_grow_back_and_go_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimface.compress.prune import soft

    seen: list[tuple[int, int]] = []
    zero = soft.zero_filters_

    def silent(detector: Detector) -> int:
        weight = detector.get_submodule("base.conv1.0").weight
        return int((weight.flatten(1).abs().sum(dim=1) == 0).sum())

    def watched(detector: Detector, *args: Any, **options: Any) -> None:
        before = silent(detector)
        zero(detector, *args, **options)
        seen.append((before, silent(detector)))

    monkeypatch.setattr(soft, "zero_filters_", watched)
    detector = start()
    pruned = STEP(detector, Context(folder=tmp_path, source=SOURCE, workers=0))
    assert seen == [(0, 1), (0, 1)], "zeroed before epochs 2 and 3, and grown back in between"
    assert len(pruned.get_submodule("base.conv1.0").weight) == 1
    assert len(detector.get_submodule("base.conv1.0").weight) == 2
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["epoch", "epoch", "epoch", "prune"]


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    want = STEP(start(), Context(folder=whole, source=SOURCE, workers=0))
    with pytest.raises(KilledError):
        track = dies_in_epoch(2, after=1)
        STEP(start(), Context(folder=parts, source=SOURCE, workers=0, track=track))
    found = STEP(start(), Context(folder=parts, source=SOURCE, workers=0))
    for name, tensor in want.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_a_budget_out_of_reach_is_refused_before_the_training(tmp_path: Path) -> None:
    prune = Prune(allocator=Uniform(budget=parse_budget("-99.9% macs")))
    with pytest.raises(BudgetError, match="out of reach"):
        STEP.model_copy(update={"prune": prune})(
            start(), Context(folder=tmp_path, source=SOURCE, workers=0)
        )
    assert not (tmp_path / "training.state").exists()


def test_zeroed_filters_may_stay_and_be_shrunk_away_exactly(tmp_path: Path) -> None:
    masked, shrunk = tmp_path / "masked", tmp_path / "shrunk"
    masked.mkdir()
    shrunk.mkdir()
    step = STEP.model_copy(update={"end": "zero"})
    soft = step(start(), Context(folder=masked, source=SOURCE, workers=0))
    weight = soft.get_submodule("base.conv1.0").weight
    assert len(weight) == 2
    assert int((weight.flatten(1).abs().sum(dim=1) == 0).sum()) == 1
    small = Shrink()(soft, Context(folder=shrunk, source=SOURCE))
    record = json.loads((shrunk / "records.jsonl").read_text())
    assert record["kind"] == "shrink" and record["record"]["pictures"] == 2
    assert record["record"]["after"]["parameters"] < record["record"]["before"]["parameters"]
    images = 50 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for one, other in zip(soft.eval().maps(images), small.eval().maps(images), strict=True):
            assert float((one - other).abs().max()) <= 1e-4 * max(float(one.abs().max()), 1)
