"""Profiles against counts by hand."""

import pytest
import torch

from slimface.errors import UsageError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.profile import compare_profiles, profile
from slimface.model.surgery import remove_channels
from tests.model.drawn_detector import drawn_detector


def test_a_small_network_by_hand():
    """Stem 3->2 of 5x5 stride 4, one 3x3 and one 1x1 block of 2, heads 1x1 and 32->4->2."""
    found = profile(drawn_detector(("plain",), 2, seed=0), 16, 16)
    layers = {layer.name: layer for layer in found.layers}
    assert layers["stem.0"].macs == 4 * 4 * 2 * 3 * 25
    assert layers["parts.0.first.0"].macs == 4 * 4 * 2 * 2 * 9
    assert layers["head"].macs == 4 * 4 * 5 * 2
    assert layers["head"].parameters == 5 * 2 + 5
    assert layers["tail.0"].macs == 32 * 4
    assert layers["tail.0"].parameters == 32 * 4 + 4
    assert layers["stem.1"].macs == 0
    assert layers["stem.0"].output == (2, 4, 4)


def test_a_shared_layer_counts_its_parameters_once_and_its_work_each_time():
    detector = drawn_detector(("shared",), 2, seed=0)
    found = profile(detector, 16, 16)
    layers = {layer.name: layer for layer in found.layers}
    assert layers["parts.0.second.0"].uses == 3
    assert layers["parts.0.second.0"].macs == 3 * layers["parts.0.first.0"].macs
    assert layers["parts.0.second.0"].parameters == layers["parts.0.first.0"].parameters
    assert found.parameters == sum(p.numel() for p in detector.parameters())


def test_parameters_that_are_no_layer_are_counted():
    found = profile(build(eresfd.naver(), seed=0), 64, 64)
    fusion = next(layer for layer in found.layers if layer.name == "base.m0.fpn")
    assert (fusion.parameters, fusion.macs) == (18, 0)


def test_most_memory_is_the_picture_and_the_first_map():
    """16 x 16 x 3 floats and 4 x 4 x 2: nothing later comes near."""
    assert profile(drawn_detector(("plain",), 2, seed=0), 16, 16).activation_bytes == 4 * (768 + 32)


def test_a_residual_keeps_its_input_alive():
    """Wide maps on a small picture: input, and the two maps of the block."""
    plain = profile(drawn_detector(("plain",), 64, seed=0), 16, 16).activation_bytes
    residual = profile(drawn_detector(("residual",), 64, seed=0), 16, 16).activation_bytes
    one_map = 4 * 4 * 4 * 64
    assert plain == 2 * one_map
    assert residual == 3 * one_map


def test_profiling_leaves_the_detector_alone():
    detector = build(eresfd.naver(width=8), seed=0).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    profile(detector, 64, 64)
    assert detector.training
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_profiles_are_compared_layer_by_layer():
    detector = build(eresfd.naver(width=8), seed=0)
    narrow = remove_channels(detector, {"base.conv2.0": [0]})
    before, after = profile(detector, 64, 64), profile(narrow, 64, 64)
    changes = {change.name: change for change in compare_profiles(before, after)}
    assert changes["base.conv2.0"].before.output[0] == 4
    assert changes["base.conv2.0"].after.output[0] == 1
    assert changes["base.conv4.res_layer.0"].before == changes["base.conv4.res_layer.0"].after


def test_profiles_of_different_sizes_are_not_compared():
    detector = build(eresfd.naver(width=8), seed=0)
    with pytest.raises(UsageError, match="one size"):
        compare_profiles(profile(detector, 64, 64), profile(detector, 64, 96))


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(UsageError, match="no pixels"):
        profile(build(eresfd.naver(width=8), seed=0), 0, 64)
