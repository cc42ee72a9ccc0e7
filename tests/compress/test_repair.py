import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.importance import L1
from slimface.compress.prune.step import Prune
from slimface.compress.repair.kinds import Norms, Reconstruct
from slimface.compress.repair.reconstruct import reconstruct, remaining_outputs
from slimface.compress.repair.solve import (
    Equations,
    in_blocks,
    is_solvable,
    said_at,
    seen_at,
    set_weight_,
    weight_of,
)
from slimface.data.source import WiderFace
from slimface.errors import UsageError
from slimface.model import eresfd, zoo
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.surgery import remove_channels
from slimface.step import Context
from tests.compress.schedules import context, start

LOOK = Look(batches=1, batch_size=4, size_px=96)


def everywhere(answer: Tensor) -> Tensor:
    """All places of an output."""
    height, width = answer.shape[2:] if answer.dim() > 2 else (1, 1)
    return torch.cartesian_prod(*(torch.arange(n) for n in (len(answer), height, width)))


LAYERS = [
    nn.Conv2d(5, 4, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(3, 6, (1, 3), padding=(0, 2), dilation=(1, 2)),
    nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
    nn.Conv2d(3, 6, 5, stride=3, padding=2, groups=3),
    nn.Linear(7, 4),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("shift", [True, False])
def test_a_layer_is_found_again_from_its_answers(layer: nn.Module, shift: bool) -> None:
    torch.manual_seed(0)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    asked = copy.deepcopy(layer).double()
    if not shift and asked.bias is not None:
        nn.init.zeros_(asked.bias)
    width = asked.in_features if isinstance(asked, nn.Linear) else asked.in_channels
    shape = (60, width) if isinstance(asked, nn.Linear) else (4, width, 11, 13)
    given = torch.randn(shape, dtype=torch.float64)
    answer = asked(given).detach()
    other = copy.deepcopy(asked)
    nn.init.normal_(other.weight)
    places = everywhere(answer)
    with torch.no_grad():
        equations = Equations.of(
            seen_at(other, given, places), in_blocks(other, said_at(answer, places))
        )
        weight, moved = equations.solve(weight_of(other), 1e-9, shift=shift)
        set_weight_(other, weight)
    torch.testing.assert_close(other.weight, asked.weight, rtol=1e-5, atol=1e-6)
    bias = torch.zeros(len(asked.weight)) if asked.bias is None else asked.bias.detach()
    torch.testing.assert_close(moved.flatten(), bias.double(), rtol=1e-5, atol=1e-6)


def test_the_solution_is_that_of_a_plain_least_squares() -> None:
    rng = np.random.default_rng(0)
    seen, wanted = rng.normal(size=(50, 6)) + 3, rng.normal(size=(50, 2))
    best = np.linalg.lstsq(np.c_[seen, np.ones(50)], wanted, rcond=None)[0]
    one, other = (
        Equations.of(torch.tensor(seen[part])[None], torch.tensor(wanted[part])[None])
        for part in (slice(20), slice(20, 50))
    )
    start = torch.zeros(1, 6, 2, dtype=torch.float64)
    weight, shift = (one + other).solve(start, 1e-12, shift=True)
    np.testing.assert_allclose(weight[0], best[:-1], atol=1e-8)
    np.testing.assert_allclose(shift[0], best[-1], atol=1e-8)


def test_what_the_inputs_do_not_decide_stays_as_it_was() -> None:
    silent = torch.zeros(1, 9, 3, dtype=torch.float64)
    silent[:, :, 0] = torch.arange(9)
    equations = Equations.of(silent, 2 * silent[:, :, :1])
    before = torch.tensor([[[7.0], [8.0], [9.0]]], dtype=torch.float64)
    weight, _ = equations.solve(before, 1e-9, shift=False)
    torch.testing.assert_close(weight.flatten(), torch.tensor([2.0, 8.0, 9.0]).double())


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same"), nn.ReLU()],
    ids=str,
)
def test_what_it_cannot_solve_for_is_left_alone(layer: nn.Module) -> None:
    assert not is_solvable(layer)


def test_a_channel_that_repeats_another_is_not_missed() -> None:
    """The whole answers are back, though their reader never heard of the other channel alone."""
    whole = build(eresfd.naver(width=8), seed=1).eval()
    groups = channel_groups(whole)
    group = next(one for one in groups if one.name == "base.conv4.res_layer.0")
    layers = {m.module: m for m in group.members if m.side == "out"}
    with torch.no_grad():
        for name in layers:
            for tensor in whole.get_submodule(name).state_dict().values():
                if tensor.dim():
                    tensor[1] = tensor[0]
    keep = {group.name: np.array([0, *range(2, group.size)])}
    narrow = remove_channels(whole, keep, groups=groups)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    stays = remaining_outputs(whole, keep, groups)
    mended = reconstruct(whole, narrow, stays, images, ridge=1e-9)
    given = whole.prepare(images)
    wanted, cut, found = (net(given).logits.detach() for net in (whole, narrow, mended))
    assert (found - wanted).abs().max() < 0.01 * (cut - wanted).abs().max()


def test_nothing_is_changed_where_nothing_was_removed() -> None:
    whole = start(8).eval()
    groups = channel_groups(whole)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    mended = reconstruct(whole, whole, remaining_outputs(whole, {}, groups), images)
    given = whole.prepare(images)
    torch.testing.assert_close(mended(given).logits, whole(given).logits, rtol=1e-3, atol=1e-4)


def distance(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    given = one.prepare(images)  # type: ignore[operator]
    with torch.no_grad():
        pairs = zip(one.maps(given), other.maps(given), strict=True)  # type: ignore[operator]
        return sum(float((a - b).square().mean() / a.var()) for a, b in pairs)


@pytest.mark.data
@pytest.mark.parametrize("name", ["eresfd", "retinaface-mobilenet025", "extd-32", "yunet-n"])
def test_published_detectors_answer_more_as_they_did(
    name: str,
    weights_root: Path,
    wider_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    whole = zoo.load(name).eval()
    look = Look(batches=1, batch_size=8, size_px=160)
    source = WiderFace(root=str(wider_root), limit=100)
    context = Context(folder=tmp_path, source=source, workers=0)
    plain = Prune(importance=L1(), allocator=Uniform(rate=0.2))
    narrow = plain(whole, context)
    mended = plain.model_copy(update={"repair": Reconstruct(look=look)})(whole, context)
    unseen = look(context, split="val")
    assert unseen is not None
    images = unseen.batches[0].images
    assert distance(whole, mended, images) < 0.5 * distance(whole, narrow, images)


def test_norms_are_those_of_the_pictures(tmp_path: Path) -> None:
    repair = Norms(look=LOOK)
    mended = Prune(importance=L1(), allocator=Uniform(rate=0.5), repair=repair)(
        start(8), context(tmp_path)
    )
    probe = LOOK(context(tmp_path))
    assert probe is not None
    norm = mended.get_submodule("base.conv1.1")
    given = mended.prepare(probe.batches[0].images)
    answer = mended.get_submodule("base.conv1.0")(given)
    torch.testing.assert_close(norm.running_mean, answer.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_without_pictures_it_says_what_to_do(tmp_path: Path) -> None:
    step = Prune(importance=L1(), allocator=Uniform(rate=0.5), repair=Reconstruct())
    with pytest.raises(UsageError, match="--data DIR, or leave the repair out"):
        step(start(8), Context(folder=tmp_path))


def test_the_same_seed_mends_in_the_same_way(tmp_path: Path) -> None:
    step = Prune(importance=L1(), allocator=Uniform(rate=0.5), repair=Reconstruct(look=LOOK))
    one, other = (step(start(8), context(tmp_path / name)).state_dict() for name in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
