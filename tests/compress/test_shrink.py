"""Shrinking, on networks small enough to know what must happen to each channel."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimface.compress.shrink import shrink
from slimface.compress.shrink.carriers import Block, choose_carriers, shares
from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Preprocess
from slimface.errors import TraceError, UsageError
from slimface.model import eresfd, zoo
from slimface.model.build import build
from slimface.model.classifier import IMAGENET, classifier
from slimface.model.detector import Detector
from tests.model.drawn_detector import live_in_


class Network(Detector):
    """Any body between the picture and a head."""

    head_names = ("head",)
    trace_size = (16, 16)

    def __init__(self, body: nn.Module, width: int, *, kernel: int = 1) -> None:
        super().__init__(
            DetectorSpec(
                name="drawn",
                architecture=Architecture(name="drawn"),
                preprocess=Preprocess(),
                anchors=AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(16.0,)),)),
            )
        )
        self.body = body
        self.head = nn.Conv2d(width, 2, kernel, padding=kernel // 2)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.head(self.body(images)),)


class Stream(nn.Module):
    """A residual block, applied so many times."""

    def __init__(self, width: int, times: int = 1) -> None:
        super().__init__()
        self.first = conv(3, width)
        self.block = nn.Sequential(conv(width, width), conv(width, width))
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.times):
            x = x + self.block(x)
        return x


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options),
        nn.BatchNorm2d(outputs),
        nn.PReLU(),
    )


def network(body: nn.Module, width: int, *, kernel: int = 1) -> Network:
    torch.manual_seed(0)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    detector = Network(body, width, kernel=kernel)
    live_in_(detector, 3)
    return detector


def mask_(layer: nn.Module, *filters: int) -> None:
    with torch.no_grad():
        layer.weight[list(filters)] = 0


def assert_same(found: Detector, expected: Detector) -> None:
    """At every small size there is, and a larger one."""
    generator = torch.Generator().manual_seed(5)
    for size in [(h, w) for h in (1, 2, 3, 4, 7) for w in (1, 2, 3, 6)] + [(33, 48)]:
        images = torch.randn((1, 3, *size), generator=generator)
        with torch.inference_mode():
            for one, other in zip(found.maps(images), expected.maps(images), strict=True):
                assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def small(detector: Detector, *, exact: bool = True):
    return shrink(detector, exact=exact, size_px=(16, 16))


def test_a_chain_of_dense_convolutions_needs_one_carrier():
    detector = network(nn.Sequential(conv(3, 8), conv(8, 6)), 6)
    mask_(detector.body[0][0], 1, 2, 5)
    shrunk = small(detector)
    assert shrunk.network.body[0][0].out_channels == 6
    assert [(g.before, g.after, g.carriers) for g in shrunk.report.groups] == [(8, 6, 1)]
    assert (shrunk.report.zeroed, shrunk.report.removed, shrunk.report.carried) == (3, 2, 1)
    assert_same(shrunk.network, detector)


def test_the_carrier_takes_over_the_summed_weights():
    detector = network(nn.Sequential(conv(3, 4), conv(4, 6)), 6)
    mask_(detector.body[0][0], 0, 3)
    norm, slope = detector.body[0][1], detector.body[0][2]
    with torch.no_grad():
        constants = slope(
            norm.bias - norm.running_mean * norm.weight / (norm.running_var + 1e-5).sqrt()
        )
    weight = detector.body[1][0].weight
    total = constants[0] * weight[:, 0] + constants[3] * weight[:, 3]
    carried = small(detector).network.body[1][0].weight
    strongest = int(constants[[0, 3]].abs().argmax()) * 3
    place = {0: 0, 3: 2}[strongest]
    assert torch.allclose(carried[:, place], total / constants[strongest], atol=1e-6)


def test_a_pointwise_reader_needs_no_carrier_and_trains_as_before():
    detector = network(nn.Sequential(conv(3, 8), conv(8, 6, 1)), 6)
    mask_(detector.body[0][0], 1, 2, 5)
    shrunk = small(detector)
    assert shrunk.network.body[0][0].out_channels == 5
    assert shrunk.network.body[1][0].bias is None
    assert_same(shrunk.network, detector)
    images = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    # In training a batch norm subtracts whatever constant there is.
    one, other = shrunk.network.train().maps(images)[0], detector.train().maps(images)[0]
    assert torch.allclose(one, other, atol=1e-4)


def test_constants_that_are_zero_cost_nothing():
    detector = network(nn.Sequential(conv(3, 8), conv(8, 6)), 6)
    mask_(detector.body[0][0], 1, 2)
    with torch.no_grad():
        detector.body[0][1].bias[[1, 2]] = 0
        detector.body[0][1].running_mean[[1, 2]] = 0
    shrunk = small(detector)
    assert shrunk.network.body[0][0].out_channels == 6
    assert shrunk.report.carried == 0


def test_behind_a_depthwise_layer_few_carriers_know_all_borders():
    depthwise = conv(40, 40, groups=40)
    detector = network(nn.Sequential(conv(3, 40, 1), depthwise, conv(40, 6, 1)), 6)
    mask_(detector.body[0][0], *range(36))
    shrunk = small(detector)
    # Nine sums of taps and one is the constant; slopes of both signs double that at most.
    assert 4 < shrunk.network.body[0][0].out_channels <= 4 + 15
    assert_same(shrunk.network, detector)
    assert small(detector, exact=False).network.body[0][0].out_channels == 4


def test_a_strided_depthwise_layer_has_other_borders_at_odd_sizes():
    depthwise = conv(40, 40, groups=40, stride=2)
    detector = network(nn.Sequential(conv(3, 40, 1), depthwise, conv(40, 6, 1)), 6)
    mask_(detector.body[0][0], *range(36))
    shrunk = small(detector)
    assert shrunk.network.body[0][0].out_channels < 40
    assert_same(shrunk.network, detector)


def test_a_stream_keeps_what_any_writer_writes_and_says_who():
    detector = network(Stream(6), 6)
    mask_(detector.body.first[0], 0, 1)
    mask_(detector.body.block[1][0], 1, 2)
    shrunk = small(detector)
    assert shrunk.network.head.in_channels == 6
    assert [(k.layer, k.filters) for k in shrunk.report.kept] == [
        ("body.first.0", 1),
        ("body.block.1.0", 1),
    ]
    assert shrunk.report.kept[0].reason == "its channels are also written by body.block.1.0"


def test_a_shared_stage_may_send_another_constant_each_time():
    detector = network(Stream(8, times=3), 8, kernel=3)
    masked = range(6)
    mask_(detector.body.first[0], *masked)
    mask_(detector.body.block[1][0], *masked)
    shrunk = small(detector)
    # Constants grow from pass to pass: two carriers make all of them, or one if proportional.
    assert shrunk.network.head.in_channels <= 2 + 2
    assert_same(shrunk.network, detector)


def test_what_nobody_hears_goes_and_what_fed_only_that():
    detector = network(nn.Sequential(conv(3, 5), conv(5, 8), conv(8, 6)), 6)
    with torch.no_grad():
        detector.body[2][0].weight[:, :7] = 0
        detector.body[1][0].weight[7, :3] = 0
    mask_(detector.body[0][0], 4)
    shrunk = small(detector)
    assert shrunk.network.body[1][0].out_channels == 1
    # Three were heard by what is gone only; the masked one stays to carry itself.
    assert shrunk.network.body[0][0].out_channels == 2
    assert_same(shrunk.network, detector)


def test_scattered_zeros_are_no_reason_to_cut():
    detector = network(nn.Sequential(conv(3, 4), conv(4, 4)), 4)
    with torch.no_grad():
        for layer in (detector.body[0][0], detector.body[1][0]):
            layer.weight[:, :, 0] = 0
    with pytest.raises(UsageError, match="no zeroed filter"):
        small(detector)


def test_a_layer_keeps_a_channel_even_if_all_its_filters_are_zero():
    detector = network(nn.Sequential(conv(3, 4), conv(4, 6, 1)), 6)
    mask_(detector.body[0][0], *range(4))
    shrunk = small(detector)
    assert shrunk.network.body[0][0].out_channels == 1
    assert_same(shrunk.network, detector)


def test_a_closed_path_and_an_idle_stage_go():
    detector = live_in_(build(eresfd.bfpgm(), seed=0), 0)
    report = shrink(detector).report
    # The fifth stage, which the legacy pyramid forgets: 9,632 parameters but for one channel each.
    assert report.zeroed == 0
    assert {(g.before, g.after) for g in report.groups} == {(16, 1)}
    assert all("b2_5" in group.name for group in report.groups)
    assert report.before.parameters - report.after.parameters > 9_000


class Surprise(nn.Module):
    """Hears more of its input where the picture is large."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 6)
        self.second = conv(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.shape[-1] > 16:
            x = x + torch.linspace(0, 1, x.shape[-1])
        return self.second(x)


def test_a_model_that_is_not_what_it_seemed_is_not_returned():
    detector = network(Surprise(), 6)
    mask_(detector.body.first[0], 0, 1)
    with pytest.raises(TraceError, match=r"puts out something else.*\n.*keep it masked"):
        small(detector)


def test_damaged_weights_are_named():
    detector = network(nn.Sequential(conv(3, 4), conv(4, 4)), 4)
    mask_(detector.body[0][0], 0)
    with torch.no_grad():
        detector.body[1][0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(TraceError, match=r"body\.1\.0\.weight of drawn holds"):
        small(detector)


def test_the_masked_model_stays_as_it_was():
    detector = network(nn.Sequential(conv(3, 8), conv(8, 6)), 6).train()
    mask_(detector.body[0][0], 1, 2)
    before = copy.deepcopy(detector.state_dict())
    assert small(detector).network.training
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


def test_folding_is_smaller_and_says_what_it_costs():
    detector = network(nn.Sequential(conv(3, 8), conv(8, 6)), 6)
    mask_(detector.body[0][0], 1, 2, 5)
    pictures = [np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)]

    class Scored(Network):
        def read(self, maps):
            from slimface.model.detector import RawTensors

            return RawTensors(maps[0][:, 0].flatten(1), maps[0].flatten(2).transpose(1, 2))

    detector.__class__ = Scored
    folded = shrink(detector, exact=False, pictures=pictures, size_px=(16, 16))
    exact = shrink(detector, pictures=pictures, size_px=(16, 16))
    assert folded.network.body[0][0].out_channels == 5
    assert folded.report.noise_drift > 1e-3 > 1e-5 > exact.report.noise_drift
    assert folded.report.score_drift > 1e-3 > 1e-5 > exact.report.score_drift
    images = torch.randn((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    with torch.inference_mode():
        one, other = folded.network.maps(images)[0], detector.maps(images)[0]
    assert torch.allclose(one[inside], other[inside], atol=1e-5)


def test_carriers_are_a_basis_that_cannot_be_spared():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((9, 3), generator=generator).double() @ torch.randn((3, 16)).double()
    heard = torch.ones(9, dtype=torch.bool)
    block = Block(rows, heard, takes_constant=False)
    chosen = choose_carriers([block], 9)
    assert len(chosen) == 3
    parts, constant = shares(block, chosen)
    assert torch.allclose(parts @ rows[chosen], rows)
    assert not constant.any()
    # Whom nobody hears needs no carrier.
    deaf = Block(rows, heard & (torch.arange(9) < 1), takes_constant=False)
    assert len(choose_carriers([deaf], 9)) == 1


PUBLISHED = {
    # Zeroed filters as the fact sheet counts them, and parameters left.
    "eresfd-lfdp-fpgm50": (430, 53_916),
    "eresfd-bfpgm-30": (267, 63_971),
    "eresfd-bfpgm-60": (489, 39_186),
    "extd-64-lfdp-fpgm50": (1312, 107_824),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_masked_files_become_smaller(name, weights_root, monkeypatch):
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    report = shrink(zoo.load(name)).report
    assert (report.zeroed, report.after.parameters) == PUBLISHED[name]
    assert report.removed + report.carried + sum(k.filters for k in report.kept) == report.zeroed
    assert report.after.macs < report.before.macs
    assert report.noise_drift < 1e-6


def test_a_masked_classifier_shrinks_to_one_that_answers_the_same() -> None:
    rule = IMAGENET.model_copy(update={"height_px": 32, "width_px": 32})
    masked = build(classifier("resnet10t", ("cat", "dog"), preprocess=rule), seed=0).eval()
    for layer in masked.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[::3] = 0
    pictures = [np.full((40, 50, 3), level, np.uint8) for level in (0, 90, 255)]
    found = shrink(masked, pictures=pictures)
    assert found.report.removed > 0
    assert found.report.before.height == 32
    assert found.report.after.parameters < 0.8 * found.report.before.parameters
    assert found.report.pictures == 3
    assert found.report.score_drift is not None
    assert found.report.score_drift < 1e-5
    assert found.report.offset_drift is None
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found.network(images), masked(images), rtol=1e-4, atol=1e-5)
