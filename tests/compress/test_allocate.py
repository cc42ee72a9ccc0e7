from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from slimface.compress.prune.allocate import (
    Allocator,
    CostAware,
    Global,
    PerGroup,
    Uniform,
    choose,
    removed,
)
from slimface.compress.prune.importance import Fpgm, importances
from slimface.core.budget import Budget, parse_budget
from slimface.errors import BudgetError, UsageError
from slimface.model import eresfd, extd
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.cost import CostModel, cost_model
from slimface.model.surgery import remove_channels

Case = tuple[tuple[ChannelGroup, ...], dict[str, Tensor], CostModel]


def prepared(spec: object) -> Case:
    detector = build(spec, seed=1)  # type: ignore[arg-type]
    groups = channel_groups(detector)
    return groups, importances(detector, groups, Fpgm()), cost_model(detector, groups, 480, 640)


@pytest.fixture(scope="module")
def small() -> Case:
    return prepared(eresfd.naver(width=8))


@pytest.fixture(scope="module")
def extd_small() -> Case:
    return prepared(extd.extd(width=16))


def left(case: Case, gone: dict[str, int]) -> np.ndarray:
    costs = case[2]
    return costs.sizes - np.array([gone[name] for name in costs.names])


def test_the_rate_is_met_to_half_a_channel() -> None:
    assert [removed(n, 0.3) for n in (16, 8, 4)] == [5, 2, 1]


def test_published_rounding_removes_too_little_of_narrow_layers() -> None:
    """int(rate * n): nominal 10 % is 1 of 16 and none of 8 and 4."""
    assert [removed(n, 0.1, "down") for n in (16, 8, 4)] == [1, 0, 0]


def test_binary_fractions_do_not_lose_a_channel() -> None:
    assert removed(10, 0.3, "down") == 3


def test_at_least_one_channel_stays() -> None:
    assert [removed(n, 0.99) for n in (2, 3)] == [1, 2]


def test_widths_are_rounded_up_to_the_multiple() -> None:
    assert [n - removed(n, 0.4, multiple_of=8) for n in (16, 12, 6)] == [16, 8, 6]


def test_what_cannot_be_cut_is_left_out(small: Case) -> None:
    gone = Uniform(rate=0.5)(*small)
    assert gone.keys() == {group.name for group in small[0] if group.prunable}
    assert set(gone) < {group.name for group in small[0]}


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5])
@pytest.mark.parametrize("kind", [Uniform, Global, CostAware])
def test_a_rate_outside_its_range_is_refused(kind: type[Uniform], rate: float) -> None:
    with pytest.raises(ValidationError):
        kind(rate=rate)


@pytest.mark.parametrize("kind", [Uniform, Global, CostAware])
def test_a_rate_or_a_budget_is_needed_not_both(kind: type[Uniform]) -> None:
    with pytest.raises(ValidationError, match="either a rate or a budget"):
        kind()
    with pytest.raises(ValidationError, match="either a rate or a budget"):
        kind(rate=0.3, budget=parse_budget("-40% macs"))


def test_recipes_of_the_first_version_mean_what_they_meant() -> None:
    read = TypeAdapter(Allocator).validate_python
    assert read({"rate": 0.3}) == Uniform(rate=0.3)
    assert read({"kind": "global", "budget": "-40% macs"}) == Global(
        budget=Budget(unit="macs", amount=40, relative=True)
    )
    with pytest.raises(ValidationError):
        read({"kind": "uniformm", "rate": 0.3})


ALLOCATORS = [Uniform, Global, CostAware, lambda budget: PerGroup(rates={"*": 0.4}, budget=budget)]


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=["uniform", "global", "cost", "per_group"])
@pytest.mark.parametrize("text", ["-10% macs", "-40% macs", "-55% params", "14k params"])
def test_a_budget_is_met_to_one_per_cent_or_one_channel(
    small: Case, allocator: type[Uniform], text: str
) -> None:
    budget, costs = parse_budget(text), small[2]
    assert budget.unit != "ms"
    widths = left(small, allocator(budget=budget)(*small))
    target = budget.target(costs.count(budget.unit, costs.sizes))
    met = costs.count(budget.unit, widths)
    dearest = costs.savings(budget.unit, widths + 1, np.ones(len(widths))).max()
    assert met <= target
    assert met >= 0.99 * target or met + dearest > target
    assert (widths >= 1).all() and (widths <= costs.sizes).all()


@pytest.mark.parametrize("allocator", [Uniform, Global, CostAware])
def test_widths_keep_to_the_multiple_under_a_budget(small: Case, allocator: type[Uniform]) -> None:
    widths = left(small, allocator(budget=parse_budget("-30% macs"), multiple_of=4)(*small))
    sizes = small[2].sizes
    assert ((widths % 4 == 0) | (widths == sizes)).all() and (widths < sizes).any()


def test_a_uniform_budget_cuts_all_groups_alike(small: Case) -> None:
    widths = left(small, Uniform(budget=parse_budget("-40% macs"))(*small))
    sizes = small[2].sizes
    rates = 1 - widths / sizes
    # Narrow groups can only come near, to half a channel.
    low, high = (rates - 0.5 / sizes).max(), (rates + 0.5 / sizes).min()
    assert low <= high + 1e-9


def test_one_threshold_divides_all_channels(small: Case) -> None:
    _, scores, costs = small
    gone = Global(rate=0.4, floor=0.0)(*small)
    went = [np.sort(scores[n].numpy())[: gone[n]] for n in costs.names]
    # Where a single channel is left it stays, whatever it is worth.
    stayed = [np.sort(scores[n].numpy())[gone[n] :] for n in costs.names]
    threshold = max(part.max() for part in went if len(part))
    assert all(part.min() >= threshold for part in stayed if len(part) > 1)
    assert sum(gone.values()) == round(0.4 * costs.sizes.sum())


def test_the_floor_holds(small: Case) -> None:
    widths = left(small, CostAware(rate=0.4, floor=0.5)(*small))
    assert (widths >= np.ceil(0.5 * small[2].sizes)).all()
    with pytest.raises(BudgetError, match="rate of 0\\.5"):
        Global(rate=0.7, floor=0.5)(*small)


def test_cost_awareness_loses_less_value_for_the_same_saving(small: Case) -> None:
    _, scores, _ = small

    def lost(gone: dict[str, int]) -> float:
        return sum(float(scores[n].sort().values[:k].sum()) for n, k in gone.items())

    budget = parse_budget("-40% macs")
    aware = lost(CostAware(budget=budget)(*small))
    assert aware < lost(Global(budget=budget)(*small))
    assert aware < lost(Uniform(budget=budget)(*small))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-99.9% macs", "the least that can be is"),
        ("1G macs", "is met before"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_with_what_can(
    small: Case, text: str, says: str
) -> None:
    with pytest.raises(BudgetError, match=says):
        Uniform(budget=parse_budget(text))(*small)


def test_milliseconds_that_nobody_has_measured_are_refused(small: Case) -> None:
    with pytest.raises(BudgetError, match="needs a measurement"):
        Uniform(budget=parse_budget("-30% ms@onnxruntime:1t:640x480"))(*small)


def in_blocks(case: Case, block: int = 4) -> Case:
    """The case with a meter that computes in blocks of channels, as runtimes do."""
    groups, scores, costs = case
    meter = lambda widths: (np.ceil(widths / block) * block).sum(axis=-1)  # noqa: E731
    return groups, scores, replace(costs, meters={"ms": meter})


@pytest.mark.parametrize("kind", [Uniform, Global, CostAware])
def test_widths_that_gain_no_time_are_not_taken(small: Case, kind: type[Uniform]) -> None:
    case = in_blocks(small)
    gone = kind(budget=parse_budget("-20% ms@onnxruntime:1t"))(*case)
    widths, sizes = left(case, gone), case[2].sizes
    assert ((widths % 4 == 0) | (widths == sizes)).all()
    spent = case[2].count("ms", widths) / case[2].count("ms", sizes)
    assert 0.7 < spent <= 0.8


def test_all_budgets_are_met_together(small: Case) -> None:
    budgets = [parse_budget(text) for text in ("-20% params", "-45% macs")]
    gone = Global(budget=budgets[0], also=tuple(budgets[1:]))(*small)
    costs, widths = small[2], left(small, gone)
    assert costs.count("params", widths) <= 0.8 * costs.count("params", costs.sizes)
    macs = costs.count("macs", widths) / costs.count("macs", costs.sizes)
    assert 0.53 < macs <= 0.55


def test_a_budget_that_is_met_already_does_not_disturb_the_others(small: Case) -> None:
    alone = Uniform(budget=parse_budget("-30% macs"))(*small)
    met = (parse_budget("1G params"),)
    assert Uniform(budget=parse_budget("-30% macs"), also=met)(*small) == alone


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"rate": 0.3, "also": ["-30% macs"]}, "name the first as budget"),
        ({"budget": "-30% macs@64x64", "also": ["-30% macs@32x32"]}, "the same size_px"),
        ({"kind": "cost", "budget": "-30% macs", "per": "ms"}, "needs a budget of ms"),
    ],
)
def test_budgets_that_do_not_go_together_are_refused(
    fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TypeAdapter(Allocator).validate_python(fields)


def test_the_nearest_budget_that_is_named_can_be_met(small: Case) -> None:
    with pytest.raises(BudgetError) as caught:
        Global(budget=parse_budget("-99.9% params"), floor=0.5)(*small)
    text = str(caught.value).split("'")[1]
    Global(budget=parse_budget(text), floor=0.5)(*small)


def test_a_group_pays_its_own_rate(small: Case) -> None:
    gone = PerGroup(rates={"base.conv1": 0.25, "base.m0.FEM_*": 0.5})(*small)
    assert gone["base.conv1.0"] == 1
    assert gone["base.m0.FEM_0.res_branch1.0"] == 2
    assert gone["base.m0.b2_1.0.res_layer.0"] == 0


def test_a_stream_loses_the_mean_of_its_writers_rates(small: Case) -> None:
    name = "base.m0.b2_5.0.res_layer.3"
    stream = next(group for group in small[0] if group.name == name)
    layers = [member.module for member in stream.members if member.side == "out"]
    assert any(layer.startswith("base.m0.b2_5") for layer in layers)
    assert PerGroup(rates={"base.m0.b2_5": 0.5})(*small)[name] == 4
    assert PerGroup(rates={"base.m0.b2_5": 0.5, name: 0.0})(*small)[name] < 4


@pytest.mark.parametrize("preset", ["eresfd-script", "eresfd-files"])
def test_the_published_groups_of_eresfd_cover_all_that_can_be_cut(small: Case, preset: str) -> None:
    half = PerGroup(groups=preset, rates={f"g{i}": 0.5 for i in range(1, 7)})  # type: ignore[arg-type]
    assert half(*small) == Uniform(rate=0.5)(*small)


def test_the_published_groups_of_extd_fit_it(extd_small: Case) -> None:
    rates = {f"g{i}": 0.25 for i in range(1, 6)}
    assert PerGroup(groups="extd", rates=rates)(*extd_small) == Uniform(rate=0.25)(*extd_small)
    with pytest.raises(UsageError, match=r"'loc' can go: each output of .* has a meaning"):
        PerGroup(groups="extd", rates={**rates, "g6": 0.098})(*extd_small)


@pytest.mark.parametrize(
    ("rates", "groups", "says"),
    [
        ({"base.conv9": 0.3}, None, "Did you mean 'base.conv"),
        ({"g7": 0.3}, "eresfd-script", "Did you mean 'g"),
        ({"tail": 0.3}, {"tail": ("base.m0.b3",)}, "Did you mean 'base.m0"),
    ],
)
def test_a_name_that_fits_nothing_is_answered_with_the_nearest(
    small: Case, rates: dict[str, float], groups: object, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        PerGroup(rates=rates, groups=groups)(*small)  # type: ignore[arg-type]


def test_what_is_allocated_can_be_cut() -> None:
    detector = build(extd.extd(width=8), seed=0)
    groups = channel_groups(detector)
    scores = importances(detector, groups, Fpgm())
    costs = cost_model(detector, groups, 64, 64)
    gone = CostAware(budget=parse_budget("-40% macs"))(groups, scores, costs)
    remove_channels(detector, choose(scores, gone), groups=groups)


def test_the_least_important_go_and_the_rest_stays_in_order() -> None:
    keep = choose({"a": torch.tensor([3.0, 1, 2, 0])}, {"a": 2})
    np.testing.assert_array_equal(keep["a"], [0, 2])


def test_nothing_to_remove_keeps_the_group_out_of_the_surgery() -> None:
    assert choose({"a": torch.ones(3)}, {"a": 0}) == {}
