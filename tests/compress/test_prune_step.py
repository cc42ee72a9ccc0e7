import json
from pathlib import Path

import pytest
import torch

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Allocator, CostAware, Global, Uniform, choose
from slimface.compress.prune.importance import (
    L1,
    L2,
    Fpgm,
    Importance,
    Lamp,
    NormScale,
    Random,
    Taylor,
    importances,
)
from slimface.compress.prune.step import Prune
from slimface.core.budget import parse_budget
from slimface.core.spec import DetectorSpec
from slimface.data.source import DrawnScenes
from slimface.errors import UsageError
from slimface.model import eresfd, extd, retinaface
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.cost import cost_model
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels
from slimface.step import Context


@pytest.mark.parametrize(
    ("importance", "allocator"),
    [
        (Fpgm(), Uniform(rate=0.6)),
        (Lamp(), Global(rate=0.3)),
        (L2(), CostAware(budget=parse_budget("-40% macs@320x240"))),
    ],
)
def test_a_pruned_detector_is_smaller_and_loads_without_the_pruner(
    importance: Importance, allocator: Allocator, tmp_path: Path
) -> None:
    detector = build(eresfd.naver(width=8), seed=0).eval()
    step = Prune(importance=importance, allocator=allocator)
    pruned = step(detector, Context(folder=tmp_path)).eval()

    record = json.loads((tmp_path / "records.jsonl").read_text())["record"]
    counted = profile(pruned, *record["input"])
    assert record["after"]["parameters"] == record["predicted"]["parameters"] == counted.parameters
    assert record["after"]["macs"] == record["predicted"]["macs"] == counted.macs
    assert counted.parameters < profile(detector, *record["input"]).parameters
    assert counted.macs < profile(detector, *record["input"]).macs
    assert all(group["reason"] for group in record["uncut"])
    if allocator.budget is not None:
        assert record["input"] == [240, 320]

    save(pruned, tmp_path / "pruned.safetensors")
    again = load_checkpoint(tmp_path / "pruned.safetensors").detector
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, theirs in zip(pruned(images)[:2], again(images)[:2], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "spec",
    [eresfd.naver(width=8), extd.extd(width=8), retinaface.retinaface()],
    ids=lambda spec: spec.architecture.name,
)
def test_every_importance_prunes_every_detector_as_predicted(spec: DetectorSpec) -> None:
    """``remove_channels`` itself checks that removal equals silencing."""
    detector = build(spec, seed=0).eval()
    groups = channel_groups(detector)
    costs = cost_model(detector, groups, 64, 96)
    rules = [L1(), L2(), Fpgm(), Lamp(), NormScale(), Random()]
    for importance, rate in zip(rules, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True):
        scores = importances(detector, groups, importance)
        allocator = Global(rate=rate) if rate in (0.2, 0.5) else Uniform(rate=rate)
        gone = allocator(groups, scores, costs)
        pruned = remove_channels(detector, choose(scores, gone), groups=groups)
        widths = [size - gone[n] for n, size in zip(costs.names, costs.sizes, strict=True)]
        counted = profile(pruned, 64, 96)
        assert counted.parameters == costs.count("params", widths)
        assert counted.macs == costs.count("macs", widths)


def test_taylor_sees_training_pictures_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    pictures = DrawnScenes.pictures

    def watched(self: DrawnScenes, split: str) -> object:
        asked.append(split)
        return pictures(self, split)  # type: ignore[arg-type]

    monkeypatch.setattr(DrawnScenes, "pictures", watched)
    detector = build(eresfd.naver(width=4), seed=0).eval()
    source = DrawnScenes(train=4, val=2, size_px=96)
    look = Look(batches=2, batch_size=2, size_px=64)
    context = Context(folder=tmp_path, source=source)
    Prune(allocator=Uniform(rate=0.3), look=look)(detector, context)
    assert asked == []
    step = Prune(importance=Taylor(), allocator=Uniform(rate=0.3), look=look)
    one, two = step(detector, context), step(detector, context)
    assert asked == ["train", "train"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_taylor_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has to see pictures"):
        Prune(importance=Taylor(), allocator=Uniform(rate=0.5))(
            build(eresfd.naver(width=4), seed=0), Context(folder=tmp_path)
        )


def test_pruning_leaves_its_input_alone(tmp_path: Path) -> None:
    detector = build(eresfd.naver(width=4), seed=0)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    Prune(allocator=Uniform(rate=0.5))(detector, Context(folder=tmp_path))
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name])
