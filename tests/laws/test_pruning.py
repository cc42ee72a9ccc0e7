"""Laws of pruning: removal is silence, nothing is nothing, and all that stays learns."""

from pathlib import Path

import pytest
import torch

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Global, PerGroup, Uniform
from slimface.compress.prune.importance import (
    L1,
    L2,
    Activation,
    Fpgm,
    Importance,
    Lamp,
    NormScale,
    Random,
    Taylor,
)
from slimface.compress.prune.iterative import IterativePrune
from slimface.compress.prune.step import Prune
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import fingerprint
from slimface.model.detector import Detector
from slimface.model.surgery import remove_channels, silence_
from tests.compress.schedules import TRAIN, context

IMPORTANCES: list[Importance] = [
    L1(), L2(), Fpgm(), Lamp(), NormScale(), Random(), Activation(),
    Taylor(), Taylor(of="weight"), Taylor(signed=True, normalise="l2"),
]  # fmt: skip
LOOK = Look(batches=1, batch_size=2, size_px=64)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """With statistics of its own, so that silence and zero are not the same."""
    made = build(eresfd.naver(width=8), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith(("running_mean", ".bias")):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return made.eval()


def name_of(importance: Importance) -> str:
    return "-".join([importance.kind, str(getattr(importance, "of", ""))])


@pytest.mark.parametrize("importance", IMPORTANCES, ids=name_of)
def test_removal_is_silence_in_double_precision(
    importance: Importance, detector: Detector, tmp_path: Path
) -> None:
    groups = channel_groups(detector)
    step = Prune(importance=importance, allocator=Global(rate=0.3), look=LOOK)
    keep = step.choose(detector, groups, context(tmp_path)).keep
    silent = build(detector.spec, seed=0).double().eval()
    silent.load_state_dict(detector.state_dict())
    narrow = remove_channels(silent, keep, groups=groups)
    restore = silence_(silent, keep, groups=groups)
    images = 50 * torch.randn(
        1, 3, 96, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    with torch.inference_mode():
        for one, other in zip(narrow.maps(images), silent.maps(images), strict=True):
            assert float((one - other).abs().max()) <= 1e-12 * float(other.abs().max())
    restore()


@pytest.mark.parametrize("allocator", [Uniform(rate=1e-6), PerGroup(rates={"base": 0.0})])
def test_rate_nothing_changes_nothing(
    allocator: Uniform | PerGroup, detector: Detector, tmp_path: Path
) -> None:
    pruned = Prune(allocator=allocator)(detector, context(tmp_path))
    assert fingerprint(pruned) == fingerprint(detector)


def test_weights_move_in_every_layer_that_was_cut(tmp_path: Path) -> None:
    """As published, fine-tuning freezes just these: the optimizer holds the tensors before."""
    whole = build(eresfd.naver(width=8), seed=0)
    pruned = Prune(allocator=Uniform(rate=0.4))(whole, context(tmp_path / "cut"))
    after = dict(TRAIN(pruned, context(tmp_path / "train")).named_parameters())
    before = dict(pruned.named_parameters())
    cut = [name for name in before if before[name].shape != whole.get_parameter(name).shape]
    still = [name for name in cut if torch.equal(before[name], after[name])]
    assert len(cut) > 100
    # Maps of a single cell teach some norms of the uppermost level nothing; no layer is without.
    assert len(still) < 0.1 * len(cut)
    assert [name for name in still if before[name].dim() > 1] == []


def test_one_round_is_pruning_and_training(tmp_path: Path) -> None:
    detector = build(eresfd.naver(width=4), seed=0)
    prune = Prune(allocator=Uniform(rate=0.5))
    gradual = IterativePrune(prune=prune, train=TRAIN, rounds=1)
    found = gradual(detector, context(tmp_path / "rounds"))
    want = TRAIN(prune(detector, context(tmp_path / "cut")), context(tmp_path / "train"))
    assert fingerprint(found) == fingerprint(want)
