import pytest
import torch
from torch import Tensor

from slimface.compress.prune.importance import L1, L2, Fpgm, importances
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.naver(width=8), seed=3)


def filters(count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


def test_norms_are_those_of_each_filter() -> None:
    rows = filters()
    assert L1()(rows).tolist() == pytest.approx([sum(map(abs, row)) for row in rows.tolist()])
    assert L2()(rows).tolist() == pytest.approx(
        [sum(x * x for x in row) ** 0.5 for row in rows.tolist()]
    )


def test_fpgm_is_the_sum_of_distances_to_all_others() -> None:
    rows = filters()
    want = [sum(float((a - b).norm()) for b in rows) for a in rows]
    assert Fpgm()(rows).tolist() == pytest.approx(want, rel=1e-5)


def test_fpgm_tells_nearly_equal_filters_apart() -> None:
    """With the matrix-product form of cdist these distances would drown in rounding."""
    rows = torch.full((3, 9), 100.0)
    rows[1] += 1e-3
    rows[2] += 1
    assert Fpgm()(rows).argmin() == 1


def test_the_filter_amid_its_peers_goes_first() -> None:
    rows = torch.tensor([[0.0, 0], [10, 0], [0, 10], [3, 3]])
    assert Fpgm()(rows).argmin() == 3
    assert L2()(rows).argmin() == 0


@pytest.mark.parametrize("importance", [L1(), L2(), Fpgm()])
def test_every_channel_that_can_go_has_a_value(
    detector: Detector, importance: L1 | L2 | Fpgm
) -> None:
    groups = channel_groups(detector)
    scores = importances(detector, groups, importance)
    assert scores.keys() == {group.name for group in groups if group.prunable}
    for group in groups:
        if group.prunable:
            assert scores[group.name].shape == (group.size,)
            assert scores[group.name].isfinite().all()
            assert float(scores[group.name].mean()) == pytest.approx(1, abs=1e-4)


def test_all_writers_of_a_stream_have_a_say(detector: Detector) -> None:
    groups = channel_groups(detector)
    stream = max((g for g in groups if g.prunable), key=lambda g: len(g.members))
    before = importances(detector, groups, L1())[stream.name]
    other = build(detector.spec, seed=3)
    writer = [
        m.module
        for m in stream.members
        if m.side == "out" and isinstance(other.get_submodule(m.module), torch.nn.Conv2d)
    ][-1]
    with torch.no_grad():
        other.get_submodule(writer).weight[0] = 0
    after = importances(other, groups, L1())[stream.name]
    assert after[0] < before[0] and after[0] > 0
