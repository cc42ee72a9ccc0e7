"""Channel groups: who writes, who reads, and what cannot be cut."""

import numpy as np
import pytest
import torch
from torch import nn

from slimface.errors import TraceError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.model.surgery import remove_channels
from tests.model.drawn_detector import DrawnDetector, conv, drawn_detector


def named(detector: Detector) -> dict[str, ChannelGroup]:
    return {group.name: group for group in channel_groups(detector)}


def places(group: ChannelGroup) -> dict[tuple[str, str], list[list[int]]]:
    return {(m.module, m.side): m.positions.tolist() for m in group.members}


@pytest.fixture(scope="module")
def groups():
    return named(build(eresfd.naver(), seed=0))


def test_a_residual_stream_is_one_group(groups):
    writers = {
        m.module
        for m in groups["base.m0.b2_1.0.res_layer.3"].members
        if m.module[-2:] in (".0", ".3")
    }
    assert {
        "base.m0.b2_1.0.res_layer.3",
        "base.m0.b2_1.0.shortcut_layer.0",
        "base.m0.b2_1.1.res_layer.3",
        "base.m0.b2_1.2.res_layer.3",
        "base.m0.fpn.itm.0.conv.0",
    } <= writers


def test_the_separated_pyramid_ties_its_four_fine_levels_to_the_fifth_stage(groups):
    writers = {m.module for m in groups["base.m0.b2_4.0.res_layer.3"].members if m.side == "out"}
    assert {f"base.m0.fpn.laterals.{i}.conv.0" for i in range(4)} <= writers
    assert "base.m0.fpn.laterals.4.conv.0" not in writers


def test_concatenated_branches_stand_behind_each_other_in_the_heads(groups):
    first, second, third = (
        places(groups[f"base.m0.FEM_0.res_branch{name}"])["conf.0", "in"]
        for name in ("1.0", "2.3", "3.3")
    )
    assert [row[0] for row in first + second + third] == list(range(16))


def test_heads_and_the_picture_are_not_cut_and_say_why(groups):
    assert groups["picture"].reason == "these are the colours of the picture"
    for name in build(eresfd.naver(), seed=0).head_names:
        assert not groups[name].prunable
        assert groups[name].reason == f"each output of {name} has a meaning"


def test_what_no_prediction_depends_on_says_so():
    """The pyramid of B-FPGM never reads the last stage, which must still shrink with its input."""
    groups = named(build(eresfd.bfpgm(), seed=0))
    assert groups["base.m0.b2_5.0.res_layer.3"].reason.startswith("no prediction depends on")
    assert ("base.m0.b2_5.0.res_layer.0", "in") in places(groups["base.m0.b2_4.0.res_layer.3"])


def test_every_channel_is_in_exactly_one_group_on_each_side():
    detector = drawn_detector(("ghost", "concatenated", "depthwise", "shared"), 8, seed=0)
    seen: dict[tuple[str, str], list[int]] = {}
    for group in channel_groups(detector):
        for member in group.members:
            assert member.positions.shape[0] == group.size
            seen.setdefault((member.module, member.side), []).extend(member.positions.ravel())
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            assert sorted(seen[name, "out"]) == list(range(module.out_channels))
            assert sorted(seen[name, "in"]) == list(range(module.in_channels))


def test_a_flattened_map_is_read_cell_by_cell():
    detector = drawn_detector(("plain",), 2, seed=0)
    group = next(g for g in channel_groups(detector) if ("tail.0", "in") in places(g))
    expected = np.arange(2 * 16).reshape(2, 16).tolist()
    assert places(group)["tail.0", "in"] == expected


def test_a_depthwise_convolution_passes_channels_on():
    detector = drawn_detector(("depthwise",), 4, seed=0)
    group = named(detector)["parts.0.first.0"]
    assert ("parts.0.second.0", "out") in places(group)
    assert ("parts.0.second.0", "in") not in places(group)


def test_a_shared_stage_ties_its_input_to_its_output():
    group = named(drawn_detector(("shared",), 4, seed=0))["parts.0.first.0"]
    assert {("parts.0.second.0", "in"), ("parts.0.second.0", "out")} <= set(places(group))


def test_a_sum_with_a_concatenation_is_cut_in_two_groups():
    """Channels 0-1 are also written by one branch, 2-3 by the other."""
    groups = named(drawn_detector(("crossed",), 4, seed=0))
    first, second = groups["parts.0.first.0"], groups["parts.0.first.0#2"]
    assert places(first)["parts.0.first.0", "out"] == [[0], [1]]
    assert places(second)["parts.0.first.0", "out"] == [[2], [3]]
    assert ("parts.0.second.0", "out") in places(first)
    assert ("parts.0.third.0", "out") in places(second)


def test_channels_tied_to_each_other_count_as_one():
    """A map and its ghost are added to a stream: channels 0 and 2 of it go together."""
    group = named(drawn_detector(("ghostly",), 4, seed=0))["stem.0"]
    assert group.size == 2
    assert places(group)["stem.0", "out"] == [[0, 2], [1, 3]]
    assert places(group)["parts.0.second.0", "out"] == [[0], [1]]


class _With(DrawnDetector):
    """A drawn detector with another part in the middle."""

    def __init__(self, part: nn.Module, width: int = 4) -> None:
        super().__init__(("plain",), width)
        self.parts = nn.Sequential(conv(width, width), part, conv(width, width))
        self.eval()


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return x * self.gamma


class _Shuffled(nn.Module):
    def forward(self, x):
        b, c, h, w = x.shape
        return x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


def test_a_loose_parameter_is_refused_by_name():
    with pytest.raises(TraceError, match=r"parts\.1\.gamma"):
        channel_groups(_With(_Scaled()))


def test_convolutions_in_groups_and_group_norms_are_left_whole():
    grouped = named(_With(nn.Conv2d(4, 4, 3, padding=1, groups=2)))
    assert "in 2 groups" in grouped["parts.0.0"].reason
    normed = named(_With(nn.GroupNorm(2, 4)))
    assert "GroupNorm" in normed["parts.0.0"].reason


def test_a_channel_shuffle_is_found_out_when_channels_are_removed():
    detector = _With(_Shuffled())
    with pytest.raises(TraceError):
        remove_channels(detector, {"parts.0.0": [1, 2, 3]})
    with pytest.raises(TraceError):
        remove_channels(detector, {"parts.0.0": [0, 1]})


def test_a_concatenation_flattened_for_a_linear_layer_is_refused():
    """Torch-Pruning loses its offsets there; the count of channels shows it."""
    detector = drawn_detector(("crossed",), 4, seed=0)
    detector.parts = detector.parts[:1]
    with pytest.raises(TraceError, match="could be followed"):
        channel_groups(detector)


def test_tracing_leaves_the_detector_alone():
    detector = build(eresfd.naver(width=8), seed=0).train()
    with torch.inference_mode():
        channel_groups(detector)
    assert detector.training
    assert all(parameter.requires_grad for parameter in detector.parameters())
