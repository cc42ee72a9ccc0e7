import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.spec import DetectorSpec
from slimface.model import eresfd, extd, retinaface, yunet
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.cost import CostModel, cost_model
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels

SIZE = (96, 160)
SPECS = (eresfd.naver(width=8), extd.extd(width=8), retinaface.retinaface(), yunet.yunet())

Case = tuple[Detector, tuple[ChannelGroup, ...], CostModel]


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.architecture.name)
def case(request: pytest.FixtureRequest) -> Case:
    spec: DetectorSpec = request.param
    detector = build(spec, seed=0).eval()
    groups = channel_groups(detector)
    return detector, groups, cost_model(detector, groups, *SIZE)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_prediction_is_what_is_counted_after_the_cut(case: Case, seed: int) -> None:
    detector, groups, costs = case
    rng = np.random.default_rng(seed)
    widths = [int(rng.integers(1, size + 1)) for size in costs.sizes]
    keep = {name: np.arange(n) for name, n in zip(costs.names, widths, strict=True)}
    counted = profile(remove_channels(detector, keep, groups=groups), *SIZE)
    assert costs.count("params", widths) == counted.parameters
    assert costs.count("macs", widths) == counted.macs


def test_uncut_it_is_the_profile(case: Case) -> None:
    detector, _, costs = case
    whole = profile(detector, *SIZE)
    assert costs.count("params", costs.sizes) == whole.parameters
    assert costs.count("macs", costs.sizes) == whole.macs


@given(data=st.data(), unit=st.sampled_from(["params", "macs"]))
@settings(max_examples=15, deadline=None)
def test_savings_are_differences_of_counts(case: Case, data: st.DataObject, unit: str) -> None:
    costs = case[2]
    widths = np.array([data.draw(st.integers(1, int(size))) for size in costs.sizes])
    drop = np.minimum(widths, data.draw(st.integers(0, 4)))
    saved = costs.savings(unit, widths, drop)
    for i in (0, len(widths) // 2, len(widths) - 1):
        after = widths.copy()
        after[i] -= drop[i]
        assert saved[i] == costs.count(unit, widths) - costs.count(unit, after)
