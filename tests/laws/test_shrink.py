"""Laws of shrinking masked models, on drawn masks over EResFD, EXTD and drawn networks."""

import copy

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimface.compress.shrink import shrink
from slimface.compress.shrink.constants import observe
from slimface.errors import UsageError
from slimface.model import checkpoint, eresfd, extd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.model.surgery import zero_filters_
from tests.model.drawn_detector import PARTS, drawn_detector, live_in_


def few(count: int) -> settings:
    return settings(max_examples=count, deadline=None, derandomize=True)


def small_extd(name: str = "extd") -> Detector:
    spec = extd.extd(name, width=6)
    architecture = spec.architecture.model_copy(
        update={"options": {"width": 6, "stem": 6, "expansions": (2, 3)}}
    )
    return build(spec.model_copy(update={"architecture": architecture}), seed=0)


@st.composite
def published(draw: st.DrawFn) -> Detector:
    name = draw(st.sampled_from(["eresfd", "bfpgm", "extd"]))
    if name == "extd":
        detector = small_extd()
    else:
        spec = eresfd.naver(width=8) if name == "eresfd" else eresfd.bfpgm()
        detector = build(spec, seed=draw(st.integers(0, 9)))
        # Fusion scalars of both signs: some paths are closed, as in several published files.
        with torch.no_grad():
            detector.base.m0.fpn.w1.copy_(torch.linspace(-0.2, 1, 18).view(2, 9))
    return live_in_(detector, draw(st.integers(0, 99)))


@st.composite
def networks(draw: st.DrawFn) -> Detector:
    kinds = tuple(draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4)))
    return drawn_detector(kinds, 2 * draw(st.integers(1, 4)), draw(st.integers(0, 99)))


@st.composite
def masked(draw: st.DrawFn, detectors: st.SearchStrategy[Detector]) -> Detector:
    """A detector with zeroed filters: some layer by layer, some in all writers of a group."""
    detector = draw(detectors)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate = draw(st.sampled_from([0.2, 0.5, 0.8]))
    zero_filters_(detector, whole_groups(detector, rng, rate))
    with torch.no_grad():
        for name, layer in detector.named_modules():
            if isinstance(layer, nn.Conv2d) and name not in detector.head_names:
                layer.weight[torch.as_tensor(rng.random(len(layer.weight)) < rate / 2)] = 0
    return detector


def whole_groups(detector, rng, rate):
    """At least one channel stays in each group."""
    return {
        group.name: rng.permutation(group.size)[: max(1, round(group.size * (1 - rate)))]
        for group in channel_groups(detector)
        if group.prunable and rng.random() < 0.5
    }


def outputs(detector: Detector, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = 30 * torch.randn((2, 3, height, width), generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        return list(copy.deepcopy(detector).double().maps(images))


def assert_equal_outputs(found: Detector, expected: Detector, *sizes: tuple[int, int]) -> None:
    for size in sizes:
        pairs = zip(outputs(found, *size), outputs(expected, *size), strict=True)
        for one, other in pairs:
            assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@given(masked(published()))
@few(5)
def test_a_shrunk_model_puts_out_the_same(detector: Detector) -> None:
    small = shrink(detector).network
    assert_equal_outputs(small, detector, (70, 201), (131, 64))


@given(masked(networks()))
@few(30)
def test_a_shrunk_drawn_network_puts_out_the_same(detector: Detector) -> None:
    try:
        small = shrink(detector, size_px=detector.trace_size).network
    except UsageError:
        # The mask was empty.
        return
    assert_equal_outputs(small, detector, (16, 16))


@given(masked(published()))
@few(3)
def test_shrinking_twice_changes_nothing_more(detector: Detector) -> None:
    once = shrink(detector).network
    try:
        twice = shrink(once).network
    except UsageError:
        # All zeroed filters are gone.
        return
    assert checkpoint.fingerprint(twice) == checkpoint.fingerprint(once)


@given(masked(published()))
@few(1)
def test_a_shrunk_model_is_loaded_bit_by_bit(tmp_path_factory, detector: Detector) -> None:
    small = shrink(detector).network
    path = tmp_path_factory.mktemp("shrunk") / "model.safetensors"
    checkpoint.save(small, path)
    loaded = checkpoint.load_checkpoint(path).detector
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(small)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5]))
@few(3)
def test_masks_of_whole_groups_go_but_for_the_carriers(seed: int, rate: float) -> None:
    detector = live_in_(build(eresfd.naver(width=8), seed=0), seed % 100)
    keep = whole_groups(detector, np.random.default_rng(seed), rate)
    zero_filters_(detector, keep)
    report = shrink(detector).report
    shrunk = {group.name: group for group in report.groups}
    for group in channel_groups(detector):
        kept = len(keep.get(group.name, range(group.size)))
        after = shrunk[group.name].after if group.name in shrunk else group.size
        # One carrier is enough for dense convolutions, but for a stream that each reader hears at
        # another point; nothing is gained where it would be the only one to go.
        assert kept <= after <= kept + (kept < group.size) or len(group.members) > 6
        if group.name in shrunk:
            assert after - shrunk[group.name].carriers == kept
    assert not report.kept


@given(masked(networks()))
@few(20)
def test_what_is_said_not_to_depend_on_the_picture_does_not(detector: Detector) -> None:
    work = copy.deepcopy(detector).double()
    seen = observe(work).seen
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in seen}
    for name, taken in inputs.items():
        layer = work.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, given, taken=taken: taken.append(given[0]))
    pictures = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        work.maps(50 * pictures)
    for name, stills in seen.items():
        for still, real in zip(stills, inputs[name], strict=True):
            known = real[:, still.known]
            assert torch.allclose(known[:1], known[1:], rtol=1e-9, atol=1e-9)
            uniform = real[:, still.uniform].unsqueeze(-1).flatten(2)
            expected = still.rows[still.uniform][:, :1]
            assert torch.allclose(uniform, expected.expand_as(uniform), rtol=1e-9, atol=1e-9)
