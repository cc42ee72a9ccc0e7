"""Laws of cutting channels, on drawn networks and on EResFD."""

import copy

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimface.model import checkpoint, eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.model.surgery import Keep, remove_channels, silence_
from tests.model.drawn_detector import PARTS, drawn_detector, live_in_


@st.composite
def keeps(draw: st.DrawFn, detector: Detector) -> dict[str, np.ndarray]:
    """Channels to keep in some of the groups, at least one in each."""
    keep = {}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.floats(0.1, 1.0))
    for group in channel_groups(detector):
        if group.prunable and rng.random() < share:
            count = int(rng.integers(1, group.size + 1))
            keep[group.name] = rng.permutation(group.size)[:count]
    return keep


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Detector, Keep]:
    kinds = tuple(draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4)))
    detector = drawn_detector(kinds, 2 * draw(st.integers(1, 4)), draw(st.integers(0, 99)))
    return detector, draw(keeps(detector))


@st.composite
def published(draw: st.DrawFn) -> tuple[Detector, Keep]:
    spec = draw(st.sampled_from([eresfd.naver(width=8), eresfd.naver(width=16), eresfd.bfpgm()]))
    seed = draw(st.integers(0, 99))
    detector = live_in_(build(spec, seed=seed), seed)
    # Fusion scalars of both signs: some paths are closed, as in several published files.
    with torch.no_grad():
        detector.base.m0.fpn.w1.copy_(torch.linspace(-0.2, 1, 18).view(2, 9))
    return detector, draw(keeps(detector))


def noise(detector: Detector) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((2, 3, *detector.trace_size), generator=generator) * 30


def outputs(detector: Detector) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return detector.maps(noise(detector))


def assert_agree(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-4 * other.abs().max().clamp(min=1)


def assert_silence_is_removal(case: tuple[Detector, Keep]) -> None:
    detector, keep = case
    before = outputs(detector)
    groups = channel_groups(detector)
    silent = copy.deepcopy(detector)
    restore = silence_(silent, keep, groups=groups)
    narrow = remove_channels(detector, keep, groups=groups)
    assert_agree(outputs(narrow), outputs(silent))
    restore()
    for one, other in zip(outputs(silent), before, strict=True):
        assert torch.equal(one, other)


@given(drawn())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_removing_is_silencing_on_drawn_networks(case: tuple[Detector, Keep]) -> None:
    assert_silence_is_removal(case)


@given(published())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_removing_is_silencing_on_eresfd(case: tuple[Detector, Keep]) -> None:
    assert_silence_is_removal(case)


@given(published())
@settings(max_examples=4, deadline=None, derandomize=True)
def test_what_is_saved_is_loaded_bit_by_bit(tmp_path_factory, case: tuple[Detector, Keep]) -> None:
    narrow = remove_channels(*case)
    path = tmp_path_factory.mktemp("pruned") / "model.safetensors"
    checkpoint.save(narrow, path)
    loaded = checkpoint.load_checkpoint(path).detector
    assert checkpoint.fingerprint(loaded) == checkpoint.fingerprint(narrow)
    for one, other in zip(outputs(loaded), outputs(narrow), strict=True):
        assert torch.equal(one, other)


@given(drawn())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_keeping_everything_changes_nothing(case: tuple[Detector, Keep]) -> None:
    detector, _ = case
    everything = {
        group.name: np.arange(group.size) for group in channel_groups(detector) if group.prunable
    }
    same = remove_channels(detector, everything)
    assert same is not detector
    assert checkpoint.fingerprint(same) == checkpoint.fingerprint(detector)
    for one, other in zip(outputs(same), outputs(detector), strict=True):
        assert torch.equal(one, other)


@given(drawn())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_parameters_and_macs_fall_as_the_widths_say(case: tuple[Detector, Keep]) -> None:
    """From the groups alone: the share of positions that stays, on each side of each layer."""
    detector, keep = case
    stay: dict[tuple[str, str], int] = {}
    for group in channel_groups(detector):
        kept = np.asarray(keep.get(group.name, np.arange(group.size)))
        for member in group.members:
            place = (member.module, member.side)
            stay[place] = stay.get(place, 0) + member.positions[kept].size
    after = {layer.name: layer for layer in profile(remove_channels(detector, keep), 16, 16).layers}
    for layer in profile(detector, 16, 16).layers:
        module = detector.get_submodule(layer.name)
        outgoing = stay.get((layer.name, "out"), 1)
        parameters = len(list(module.parameters())) * outgoing
        if isinstance(module, nn.Conv2d | nn.Linear):
            incoming = stay.get((layer.name, "in"), 1)
            kernel = module.weight[0, 0].numel()
            parameters = outgoing * (incoming * kernel + (module.bias is not None))
            area = np.prod(layer.output[1:], dtype=int)
            assert after[layer.name].macs == layer.uses * area * outgoing * incoming * kernel
        assert after[layer.name].parameters == parameters


@given(published())
@settings(max_examples=3, deadline=None, derandomize=True)
def test_everything_that_stays_still_learns(case: tuple[Detector, Keep]) -> None:
    detector, keep = case
    narrow = remove_channels(detector, keep).train()
    with torch.no_grad():
        narrow.base.m0.fpn.w1.fill_(0.5)
    before = {name: p.detach().clone() for name, p in narrow.named_parameters()}
    optimizer = torch.optim.Adam(narrow.parameters(), lr=1e-2)
    raw = narrow(noise(narrow))
    (raw.logits.square().mean() + raw.offsets.square().mean()).backward()
    optimizer.step()
    for name, parameter in narrow.named_parameters():
        # Adam moves by less than the last bit where the gradient is below its epsilon.
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-6:
            assert not torch.equal(parameter, before[name]), name
    still = [name for name, p in narrow.named_parameters() if p.grad is None]
    assert all(".b2_5." in name for name in still)
    assert not still or detector.spec.architecture.options["legacy_fpn"]
