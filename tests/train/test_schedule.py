import pytest
import torch
from torch import nn

from slimface.model.detector import Detector
from slimface.train.schedule import Schedule


def test_norms_biases_and_fusion_weights_do_not_decay(detector: Detector) -> None:
    decaying, free = Schedule(epochs=1).make_optimizer(detector).param_groups
    names = {id(p): name for name, p in detector.named_parameters()}
    decayed = {names[id(p)] for p in decaying["params"]}
    spared = {names[id(p)] for p in free["params"]}
    assert decaying["weight_decay"] > 0 and free["weight_decay"] == 0
    assert "base.m0.fpn.w1" in spared and "loc.0.bias" in spared
    assert all(name.endswith("weight") for name in decayed) and "base.conv1.0.weight" in decayed
    assert "base.conv1.1.weight" in spared
    assert len(decayed) + len(spared) == len(list(detector.parameters()))


def test_only_what_can_learn_is_optimised() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    groups = Schedule(epochs=1, optimizer="sgd").make_optimizer(layer).param_groups
    assert sum(len(group["params"]) for group in groups) == 1


@pytest.mark.parametrize("decay", ["cosine", "none", "steps"])
def test_the_rate_warms_up_and_never_leaves_its_bounds(decay: str) -> None:
    schedule = Schedule(
        epochs=10, learning_rate=0.1, warmup_epochs=2, decay=decay, decay_epochs=(5,)
    )
    rates = [schedule.rate_at(i / 10) for i in range(101)]
    assert rates[0] == pytest.approx(0.001) and max(rates) == pytest.approx(0.1)
    assert min(rates) >= 0.001 - 1e-12
    assert rates[:21] == sorted(rates[:21])


def test_steps_divide_by_ten() -> None:
    schedule = Schedule(epochs=9, learning_rate=1, decay="steps", decay_epochs=(3, 6))
    assert [schedule.rate_at(e) for e in (0, 3, 6)] == pytest.approx([1, 0.1, 0.01])


def test_the_optimizer_trains_layers_made_by_surgery() -> None:
    layer = nn.Conv2d(2, 2, 1)
    layer.weight = nn.Parameter(torch.ones(1, 2, 1, 1))
    optimizer = Schedule(epochs=1).make_optimizer(layer)
    assert any(layer.weight is p for p in optimizer.param_groups[0]["params"])
