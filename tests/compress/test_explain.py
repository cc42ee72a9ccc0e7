import pytest

from slimface.compress.prune.explain import explain
from slimface.errors import UsageError
from slimface.model import eresfd, extd
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.naver(width=8), seed=0)


@pytest.fixture(scope="module")
def groups(detector: Detector) -> tuple[ChannelGroup, ...]:
    return channel_groups(detector)


def test_a_residual_stream_names_all_that_is_added_into_it(
    detector: Detector, groups: tuple[ChannelGroup, ...]
) -> None:
    (tie,) = explain(detector, groups, "base.m0.b2_1.1.res_layer.3")
    assert {"base.m0.b2_1.0.res_layer.3", "base.m0.b2_1.1.res_layer.3"} <= set(tie.writers)
    assert "base.m0.b2_1.1.res_layer.4" in tie.passers
    assert "base.m0.b2_1.1.res_layer.0" in tie.readers
    assert "added up" in str(tie) and "can be cut" in str(tie)


def test_a_head_says_why_it_stays(detector: Detector, groups: tuple[ChannelGroup, ...]) -> None:
    (tie,) = explain(detector, groups, "conf.0")
    assert "cannot be cut: each output of conf.0 has a meaning" in str(tie)
    assert tie.readers == ()


def test_the_beginning_of_names_means_all_of_them(
    detector: Detector, groups: tuple[ChannelGroup, ...]
) -> None:
    assert len(explain(detector, groups, "base.m0.FEM_0")) == 5


def test_depthwise_convolutions_pass_channels_on() -> None:
    detector = build(extd.extd(width=8), seed=0)
    (tie,) = explain(detector, channel_groups(detector), "base.1.conv.0")
    assert "base.1.conv.0" in tie.passers and "base.1.conv.0" not in tie.writers


def test_a_name_of_no_layer_is_answered_with_the_nearest(
    detector: Detector, groups: tuple[ChannelGroup, ...]
) -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'base\.conv"):
        explain(detector, groups, "base.conv9.0")
