import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.fade import FadeOut
from slimface.compress.prune.importance import L1
from slimface.compress.prune.reinit import Reinit
from slimface.compress.prune.step import Prune
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import load_checkpoint
from slimface.model.surgery import remove_channels
from slimface.train.regularise import GroupLasso
from tests.compress.schedules import TRAIN, KilledError, context, dies_at, start

PRUNE = Prune(importance=L1(), allocator=Uniform(rate=0.5))
LONGER = TRAIN.model_copy(
    update={"schedule": TRAIN.schedule.model_copy(update={"epochs": 12, "learning_rate": 0.02})}
)


def test_what_is_chosen_fades_and_is_removed(tmp_path: Path) -> None:
    detector = start()
    groups = channel_groups(detector)
    chosen = PRUNE.choose(detector, groups, context(tmp_path / "look"))
    faded = FadeOut(train=LONGER, prune=PRUNE, ceiling=10.0)(detector, context(tmp_path / "fade"))
    plain = LONGER(detector, context(tmp_path / "plain"))
    wanted = remove_channels(plain, chosen.keep, groups=groups).state_dict()
    assert {n: t.shape for n, t in faded.state_dict().items()} == {
        n: t.shape for n, t in wanted.items()
    }
    # The last model before the cut: the filters of the chosen channels have shrunk.
    pressed = load_checkpoint(tmp_path / "fade" / "last.safetensors").detector
    name = next(n for n in chosen.keep if n.startswith("base.conv3"))
    filters = [model.state_dict()[f"{name}.weight"] for model in (pressed, plain)]
    gone = np.setdiff1d(np.arange(len(filters[0])), chosen.keep[name])
    left, usual = (float(weight[gone].abs().mean()) for weight in filters)
    assert left < 0.5 * usual


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = FadeOut(train=TRAIN, prune=PRUNE)
    want = plan(start(), context(tmp_path / "whole"))
    with pytest.raises(KilledError):
        plan(start(), context(tmp_path / "killed", track=dies_at(3)))
    found = plan(start(), context(tmp_path / "killed"))
    for name, tensor in want.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_the_criterion_of_the_training_stays_inside(tmp_path: Path) -> None:
    train = TRAIN.model_copy(update={"criterion": GroupLasso()})
    FadeOut(train=train, prune=PRUNE)(start(), context(tmp_path))
    first = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])
    assert {"class", "box", "lasso", "growing_l2"} <= set(first["record"]["parts"])


def test_new_weights_have_the_found_widths_and_follow_from_the_seed(tmp_path: Path) -> None:
    pruned = PRUNE(start(), context(tmp_path))
    fresh = Reinit()(pruned, context(tmp_path, seed=3))
    again = Reinit()(pruned, context(tmp_path, seed=3))
    other = Reinit()(pruned, context(tmp_path, seed=4))
    weight = "base.conv3.0.weight"
    assert {n: t.shape for n, t in fresh.state_dict().items()} == {
        n: t.shape for n, t in pruned.state_dict().items()
    }
    assert torch.equal(fresh.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(fresh.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(fresh.state_dict()[weight], pruned.state_dict()[weight])
