import json
from pathlib import Path

import pytest
import torch

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.importance import L1, L2, Fpgm
from slimface.compress.prune.step import Prune
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.profile import profile
from slimface.step import Context


@pytest.mark.parametrize("importance", [L1(), L2(), Fpgm()])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6])
def test_a_pruned_detector_is_smaller_and_loads_without_the_pruner(
    importance: L1 | L2 | Fpgm, rate: float, tmp_path: Path
) -> None:
    detector = build(eresfd.naver(width=8), seed=0).eval()
    step = Prune(importance=importance, allocator=Uniform(rate=rate))
    pruned = step(detector, Context(folder=tmp_path)).eval()

    record = json.loads((tmp_path / "records.jsonl").read_text())["record"]
    counted = profile(pruned, 480, 640)
    assert record["after"]["parameters"] == counted.parameters
    assert counted.parameters < profile(detector, 480, 640).parameters
    assert counted.macs < profile(detector, 480, 640).macs
    assert all(group["reason"] for group in record["uncut"])

    save(pruned, tmp_path / "pruned.safetensors")
    again = load_checkpoint(tmp_path / "pruned.safetensors").detector
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, theirs in zip(pruned(images)[:2], again(images)[:2], strict=True):
            assert torch.equal(ours, theirs)


def test_pruning_leaves_its_input_alone(tmp_path: Path) -> None:
    detector = build(eresfd.naver(width=4), seed=0)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    Prune(allocator=Uniform(rate=0.5))(detector, Context(folder=tmp_path))
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name])
