import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.compress.search.bounds import bounds_of
from slimface.compress.search.space import Space
from slimface.compress.search.surface import Surface
from slimface.core.budget import parse_budget
from slimface.errors import BudgetError, UsageError
from slimface.model import eresfd, extd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.cost import cost_model
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels

DETECTOR = build(eresfd.naver(width=8), seed=0).eval()
GROUPS = channel_groups(DETECTOR)
COSTS = cost_model(DETECTOR, GROUPS, 96, 128)


def surface(*budgets: str, **options: float) -> Surface:
    bounds = bounds_of(
        [parse_budget(one) for one in budgets],
        DETECTOR,
        GROUPS,
        COSTS,
        lambda items, *_, **__: items,
    )
    return Surface.of(COSTS, bounds, **options)


def drawn(seed: int, space: Space) -> np.ndarray:
    values = np.random.default_rng(seed).random(len(space.names))
    return space.rates(dict(zip(space.names, values.tolist(), strict=True)))


@given(seed=st.integers(0, 10**6), share=st.integers(5, 60), parts=st.sampled_from([3, 12, 60]))
@settings(max_examples=12, deadline=None)
def test_every_draw_meets_the_budget_and_no_channel_could_have_stayed(
    seed: int, share: int, parts: int
) -> None:
    place = surface(f"-{share}% macs")
    widths = place.place(drawn(seed, Space.over(GROUPS, COSTS, parts)))
    (bound,) = place.bounds
    assert bound.count(widths) <= bound.limit
    for i in np.flatnonzero(widths < COSTS.sizes):
        wider = widths.copy()
        wider[i] += 1
        assert bound.count(wider) > bound.limit


def test_costs_on_the_surface_are_those_of_the_detector_that_is_cut() -> None:
    place = surface("-30% macs@128x96", "-40% params")
    widths = place.place(drawn(1, Space.over(GROUPS, COSTS, 12)))
    keep = {name: np.arange(int(n)) for name, n in zip(COSTS.names, widths, strict=True)}
    counted = profile(remove_channels(DETECTOR, keep, groups=GROUPS), 96, 128)
    assert place.costs_of(widths) == [counted.macs, counted.parameters]
    whole = profile(DETECTOR, 96, 128)
    assert counted.macs <= 0.7 * whole.macs
    assert counted.parameters <= 0.6 * whole.parameters


def test_a_group_with_rate_zero_loses_nothing_while_others_can() -> None:
    space = Space.over(GROUPS, COSTS, 60)
    rates = np.ones(len(COSTS.names))
    rates[3] = 0.0
    widths = surface("-30% macs").place(rates)
    assert widths[3] == COSTS.sizes[3]
    # Alone, the others cannot: then it has to.
    only = {name: float(i == 0) for i, name in enumerate(space.names)}
    assert surface("-60% macs").place(space.rates(only)).min() >= 1


def test_widths_are_whole_multiples_and_keep_their_floor() -> None:
    place = surface("-20% macs", multiple_of=4, max_rate=0.5)
    for seed in range(5):
        widths = place.place(drawn(seed, Space.over(GROUPS, COSTS, 12)))
        assert ((widths % 4 == 0) | (widths == COSTS.sizes)).all()
        assert (widths >= 0.5 * COSTS.sizes).all()


def test_a_bound_that_may_rise_when_a_channel_goes_is_met_all_the_same() -> None:
    place = surface("-20% macs")
    (bound,) = place.bounds

    def jagged(widths: np.ndarray) -> float:
        # As in a runtime to which odd widths are dearer than the next even one.
        return float(np.where(widths % 2, widths + 1.5, widths).sum())

    most = jagged(COSTS.sizes.astype(float))
    rough = type(bound)(bound.budget, most, 0.7 * most, jagged, steady=False)
    widths = Surface.of(COSTS, [bound, rough]).place(drawn(3, Space.over(GROUPS, COSTS, 12)))
    assert bound.count(widths) <= bound.limit
    assert jagged(widths) <= 0.7 * most


@pytest.mark.parametrize(
    ("budget", "said"),
    [("-99.9% macs", "the least that can be"), ("900M macs", "met before anything is removed")],
)
def test_what_cannot_or_need_not_be_is_refused_at_once(budget: str, said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        surface(budget)


def test_what_is_offered_instead_can_be() -> None:
    with pytest.raises(BudgetError) as error:
        surface("-99.9% macs")
    offered = str(error.value).split("'")[1]
    surface(offered)


@pytest.mark.parametrize("parts", [1, 5, 24, 500])
def test_each_group_has_exactly_one_part_and_parts_are_no_more_than_asked(parts: int) -> None:
    space = Space.over(GROUPS, COSTS, parts)
    assert (space.shares.sum(axis=1) == 1).all()
    assert len(space.names) <= max(parts, 1)
    assert len(set(space.names)) == len(space.names)
    if parts == 500:
        assert len(space.names) == len(COSTS.names)


def test_values_are_the_inverse_of_rates_where_widths_are_whole() -> None:
    space = Space.over(GROUPS, COSTS, 500)
    widths = surface("-40% macs").place(drawn(4, space))
    rates = space.rates(space.values(widths))
    np.testing.assert_allclose(COSTS.sizes * (1 - rates), widths)


def test_heads_that_a_published_division_names_are_no_variable() -> None:
    detector = build(extd.extd(width=8), seed=0).eval()
    groups = channel_groups(detector)
    space = Space.over(groups, cost_model(detector, groups, 64, 64), "extd")
    assert space.names == ("g1", "g2", "g3", "g4", "g5")


def test_layers_that_nothing_depends_on_do_not_take_their_group_with_them() -> None:
    detector = build(eresfd.bfpgm(), seed=0).eval()
    groups = channel_groups(detector)
    space = Space.over(groups, cost_model(detector, groups, 64, 64), "eresfd-script")
    assert space.names == ("g1", "g2", "g3", "g4", "g5", "g6")


def test_a_name_of_no_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'base\.conv1"):
        Space.over(GROUPS, COSTS, {"stem": ("base.conv11",)})


@pytest.mark.parametrize("values", [{"base.conv1.0": 1.5}, {"stern": 0.5}])
def test_rates_beyond_bounds_and_of_no_variable_are_refused(values: dict[str, float]) -> None:
    space = Space.over(GROUPS, COSTS, 60)
    with pytest.raises(UsageError, match="no rate of this search"):
        space.rates(values)
