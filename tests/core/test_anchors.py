import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.anchors import AnchorGrid, AnchorLevel, BoxCodec

GRID = AnchorGrid(
    levels=(AnchorLevel(stride=4, sizes=(16.0,)), AnchorLevel(stride=8, sizes=(32.0, 64.0))),
    height_per_width=1.25,
)


def plain_anchors(grid, height, width):
    rows = []
    for level in grid.levels:
        step = level.step or level.stride
        for i in range(-(-height // level.stride)):
            for j in range(-(-width // level.stride)):
                for size in level.sizes:
                    centre = ((j + 0.5) * step, (i + 0.5) * step)
                    rows.append((*centre, size, size * grid.height_per_width))
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (33, 50), (480, 640)])
def test_anchors_run_level_by_level_row_by_row(height, width):
    anchors = GRID.anchors(height, width)
    np.testing.assert_array_equal(anchors, plain_anchors(GRID, height, width))
    assert GRID.count(height, width) == len(anchors)


def test_a_step_sets_the_distance_of_centres():
    level = AnchorLevel(stride=64, step=128, sizes=(512.0,))
    anchors = AnchorGrid(levels=(level,)).anchors(64, 192)
    assert anchors[:, 0].tolist() == [64, 192, 320]


def test_clipped_anchors_stay_in_the_input():
    anchors = AnchorGrid(levels=GRID.levels, clip=True).anchors(30, 40)
    assert anchors[:, 2].max() <= 40
    assert anchors[:, 3].max() <= 30


def test_anchors_are_made_once_and_cannot_be_changed():
    anchors = GRID.anchors(48, 64)
    assert GRID.anchors(48, 64) is anchors
    with pytest.raises(ValueError, match="read-only"):
        anchors[0, 0] = 1


def test_anchors_of_huge_inputs_are_not_kept():
    anchors = GRID.anchors(4000, 4000)
    assert GRID.anchors(4000, 4000) is not anchors
    assert len(anchors) == GRID.count(4000, 4000)


def test_anchors_are_the_same_in_torch():
    np.testing.assert_array_equal(GRID.anchors_in(torch, 33, 50).numpy(), GRID.anchors(33, 50))


boxes = st.tuples(
    st.floats(-100, 700), st.floats(-100, 700), st.floats(1, 500), st.floats(1, 500)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(st.lists(boxes, min_size=1, max_size=20), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
@settings(max_examples=50, deadline=None)
def test_decoding_inverts_encoding(corners, centre_variance, size_variance):
    codec = BoxCodec(centre_variance=centre_variance, size_variance=size_variance)
    truth = np.array(corners, dtype=np.float64)
    anchors = GRID.anchors(64, 64)[: len(truth)].astype(np.float64)
    np.testing.assert_allclose(
        codec.decode(codec.encode(truth, anchors), anchors), truth, atol=1e-6
    )


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_decoding_points_inverts_encoding_them(seed):
    points = np.random.default_rng(seed).uniform(-50, 700, size=(7, 5, 2))
    anchors = GRID.anchors(64, 64)[:7].astype(np.float64)
    codec = BoxCodec()
    again = codec.decode_points(codec.encode_points(points, anchors), anchors)
    np.testing.assert_allclose(again, points, atol=1e-9)


def test_no_offsets_are_the_anchor_itself():
    anchors = GRID.anchors(8, 8)
    decoded = BoxCodec().decode(np.zeros_like(anchors), anchors)
    np.testing.assert_allclose(decoded[:, 2:] - decoded[:, :2], anchors[:, 2:], rtol=1e-6)


def test_the_codec_gives_the_same_in_torch():
    anchors = GRID.anchors(16, 16)
    offsets = np.random.default_rng(0).normal(size=anchors.shape).astype(np.float32)
    in_torch = BoxCodec().decode(torch.tensor(offsets), torch.tensor(anchors)).numpy()
    np.testing.assert_allclose(in_torch, BoxCodec().decode(offsets, anchors), rtol=1e-5, atol=1e-4)
