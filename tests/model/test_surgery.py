"""Surgery: what the laws do not say."""

import numpy as np
import pytest
import torch
from torch import nn

from slimface.errors import TraceError, UsageError
from slimface.model import eresfd, surgery
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, Member, channel_groups
from slimface.model.checkpoint import fingerprint
from slimface.model.surgery import fold_batch_norms, remove_channels, silence_, zero_filters_
from tests.model.drawn_detector import drawn_detector, live_in_

NOISE = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 50


@pytest.fixture
def detector():
    detector = live_in_(build(eresfd.naver(width=8), seed=1), seed=1)
    # A zeroed filter sends on the shift of its norm, if that is positive.
    nn.init.constant_(detector.base.conv2[1].bias, 3.0)
    nn.init.zeros_(detector.base.conv2[1].running_mean)
    return detector


def test_tensors_and_fields_shrink_together(detector):
    before = fingerprint(detector)
    narrow = remove_channels(detector, {"base.conv1.0": [2, 0], "base.conv2.0": [1]})
    first, norm, second = narrow.base.conv1[0], narrow.base.conv1[1], narrow.base.conv2[0]
    assert first.weight.shape == (2, 3, 5, 5)
    assert (first.out_channels, norm.num_features) == (2, 2)
    assert (second.in_channels, second.out_channels) == (2, 1)
    assert norm.running_var.shape == (2,)
    assert torch.equal(first.weight, detector.base.conv1[0].weight[[0, 2]])
    assert fingerprint(detector) == before


def test_depthwise_convolutions_keep_one_group_a_channel():
    narrow = remove_channels(drawn_detector(("depthwise",), 4, seed=0), {"parts.0.first.0": [3]})
    layer = narrow.parts[0].second[0]
    assert (layer.groups, layer.in_channels, layer.out_channels) == (1, 1, 1)


def test_the_fusion_scalars_are_never_cut(detector):
    keep = {group.name: [0] for group in channel_groups(detector) if group.prunable}
    narrow = remove_channels(detector, keep)
    assert torch.equal(narrow.base.m0.fpn.w1, detector.base.m0.fpn.w1)
    assert narrow(NOISE).logits.shape == detector(NOISE).logits.shape


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"base.conv9.0": [0]}, "no channel group"),
        ({"base.conv2.0": []}, "Keep at least one"),
        ({"base.conv2.0": [0, 4]}, "Keep at least one, counted from 0 to 3"),
        ({"base.conv2.0": [-1]}, "Keep at least one"),
        ({"conf.0": [0]}, "each output of conf.0 has a meaning"),
        ({"picture": [0, 1]}, "colours of the picture"),
    ],
)
def test_senseless_wishes_are_refused(detector, keep, message):
    with pytest.raises(UsageError, match=message):
        remove_channels(detector, keep)


def test_the_whole_of_a_head_may_be_asked_for(detector):
    assert fingerprint(remove_channels(detector, {"conf.0": range(4)})) == fingerprint(detector)


def test_a_wrong_trace_cannot_pass_unnoticed(detector):
    """Two positions of one member exchanged: what is removed is not what is silenced."""
    group = next(g for g in channel_groups(detector) if g.name == "base.conv2.0")
    members = []
    for member in group.members:
        wrong = member.positions[::-1] if member.side == "in" else member.positions
        members.append(Member(member.module, member.side, wrong.copy()))
    wrong_group = ChannelGroup(group.name, group.size, tuple(members))
    with pytest.raises(TraceError, match="not the same as silencing"):
        remove_channels(detector, {group.name: [0]}, groups=(wrong_group,))


def test_undefined_weights_are_refused(detector):
    with torch.no_grad():
        detector.base.conv3[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(TraceError, match="damaged"):
        remove_channels(detector, {"base.conv2.0": [0]})


def test_zeroed_filters_grow_back_and_zeroed_norms_send_nothing(detector):
    group = "base.conv2.0"
    zero_filters_(detector, {group: [0, 1]})
    layer, norm = detector.base.conv2[0], detector.base.conv2[1]
    assert not layer.weight[2:].any()
    assert layer.weight[:2].any()
    assert norm.bias.all()
    detector.train()
    detector(NOISE.expand(2, -1, -1, -1)).logits.sum().backward()
    assert layer.weight.grad[2:].any()
    detector.eval()
    zero_filters_(detector, {group: [0, 1]}, norms=True)
    assert not norm.weight[2:].any() and not norm.bias[2:].any()
    narrow = remove_channels(detector, {group: [0, 1]})
    torch.testing.assert_close(narrow(NOISE).logits, detector(NOISE).logits)


def test_zeroed_is_not_removed(detector):
    zero_filters_(detector, {"base.conv2.0": [0]})
    narrow = remove_channels(detector, {"base.conv2.0": [0]})
    assert (narrow(NOISE).logits - detector(NOISE).logits).abs().max() > 1e-2


def test_masks_come_off(detector):
    before = detector(NOISE).logits
    restore = silence_(detector, {"base.conv2.0": [0]})
    assert not torch.equal(detector(NOISE).logits, before)
    restore()
    assert torch.equal(detector(NOISE).logits, before)


def test_folded_norms_are_gone_and_change_nothing(detector):
    folded = fold_batch_norms(detector)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(NOISE).logits, detector(NOISE).logits, rtol=1e-4, atol=1e-4)


def test_norms_of_shared_and_depthwise_layers_fold():
    detector = drawn_detector(("shared", "depthwise", "ghost"), 4, seed=0)
    folded = fold_batch_norms(detector)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    small = NOISE[..., :16, :16]
    for one, other in zip(folded.maps(small), detector.maps(small), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_statistics_beyond_half_precision_fold_to_finite_weights(detector):
    """As in published EXTD files: huge filters, and a variance to match."""
    with torch.no_grad():
        detector.base.conv1[0].weight.mul_(1e6)
        detector.base.conv1[1].running_mean.mul_(1e6)
        detector.base.conv1[1].running_var.mul_(1e12)
    folded = fold_batch_norms(detector)
    assert folded.base.conv1[0].weight.half().isfinite().all()
    assert np.isfinite(folded(NOISE).logits.detach().numpy()).all()


def test_a_norm_whose_input_others_read_does_not_fold():
    """The convolution's output also goes past the norm, so its filters must stay."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.layer(x)
            return y + self.norm(y)

    detector = drawn_detector(("plain",), 4, seed=0)
    detector.parts.append(live_in_(Branching(), seed=2))
    with pytest.raises(TraceError, match="Folding the batch norms changes"):
        surgery.fold_batch_norms(detector)
