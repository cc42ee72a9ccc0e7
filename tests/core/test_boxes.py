import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.boxes import areas, best_first, overlaps, suppress


def crowd(seed: int, count: int, *, spread: float = 200, side: float = 40) -> np.ndarray:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, spread, size=(count, 2))
    sides = random.uniform(0.1, 1, size=(count, 2)) * side
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def plain_suppression(boxes, scores, overlap, *, pixel=0.0):
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if all(float(overlaps(boxes[[i]], boxes[[k]], pixel=pixel)[0, 0]) <= overlap for k in kept):
            kept.append(i)
    return kept


def torchvision_suppression(boxes, scores, overlap):
    return torchvision.ops.nms(torch.tensor(boxes), torch.tensor(scores), overlap).tolist()


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 7, 255, 256, 257, 900]),
    st.sampled_from([0.05, 0.3, 0.5, 0.7, 1.0]),
    st.sampled_from([3.0, 20.0, 150.0]),
)
@settings(max_examples=40, deadline=None)
def test_suppression_is_that_of_torchvision(seed, count, overlap, side):
    boxes = crowd(seed, count, side=side)
    scores = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    assert suppress(boxes, scores, overlap=overlap).tolist() == torchvision_suppression(
        boxes, scores, overlap
    )


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5]), st.sampled_from([0.0, 1.0]))
@settings(max_examples=15, deadline=None)
def test_suppression_is_that_of_a_plain_loop_ties_included(seed, overlap, pixel):
    # Whole pixels make overlaps equal to the limit, and few scores make ties.
    boxes = np.round(crowd(seed, 120, spread=60, side=30))
    scores = np.random.default_rng(seed).integers(0, 4, size=120).astype(np.float32)
    assert suppress(boxes, scores, overlap=overlap, pixel=pixel).tolist() == plain_suppression(
        boxes, scores, overlap, pixel=pixel
    )


def test_an_overlap_equal_to_the_limit_is_allowed():
    boxes = np.array([[0, 0, 4, 1], [2, 0, 4, 1]], dtype=np.float32)
    assert overlaps(boxes[:1], boxes[1:])[0, 0] == 0.5
    assert len(suppress(boxes, np.array([2, 1], np.float32), overlap=0.5)) == 2
    assert len(suppress(boxes, np.array([2, 1], np.float32), overlap=0.4999)) == 1


def test_limits_are_compared_as_doubles_as_torchvision_does():
    # 3 / 10 in single precision is above the double 0.3, so these two overlap too much.
    boxes = np.array([[0, 0, 10, 1], [0, 0, 3, 1]], dtype=np.float32)
    scores = np.array([2, 1], dtype=np.float32)
    assert suppress(boxes, scores, overlap=0.3).tolist() == [0]
    assert torchvision_suppression(boxes, scores, 0.3) == [0]


def test_equal_scores_keep_their_order():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]], dtype=np.float32)
    assert suppress(boxes, np.ones(3, np.float32), overlap=0.3).tolist() == [0, 2]


@pytest.mark.parametrize("cap", [0, 1, 5, 63, 10_000])
def test_a_cap_gives_the_first_of_the_uncapped(cap):
    boxes, scores = crowd(1, 700), np.random.default_rng(1).random(700, dtype=np.float32)
    everything = suppress(boxes, scores, overlap=0.3)
    assert suppress(boxes, scores, overlap=0.3, cap=cap).tolist() == everything[:cap].tolist()


def test_sorted_boxes_give_the_same_faces():
    boxes, scores = crowd(2, 700), np.random.default_rng(2).random(700, dtype=np.float32)
    order = best_first(scores)
    kept = suppress(boxes[order], scores[order], overlap=0.3, is_sorted=True)
    assert order[kept].tolist() == suppress(boxes, scores, overlap=0.3).tolist()


def test_no_boxes_give_no_boxes():
    none = np.zeros((0, 4), dtype=np.float32)
    assert suppress(none, np.zeros(0, np.float32), overlap=0.3).shape == (0,)


def test_boxes_without_area_suppress_nothing():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [9, 9, 1, 1]], dtype=np.float32)
    assert len(suppress(boxes, np.ones(3, np.float32), overlap=0.3)) == 3


def test_far_and_tiny_boxes_beside_a_huge_one_are_still_compared():
    boxes = np.concatenate([crowd(3, 300, spread=20, side=3), [[-1e6, -1e6, 1e6, 1e6]]])
    boxes = boxes.astype(np.float32)
    scores = np.random.default_rng(3).random(301, dtype=np.float32)
    assert suppress(boxes, scores, overlap=0.3).tolist() == torchvision_suppression(
        boxes, scores, 0.3
    )


@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=60),
    st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_best_first_is_a_stable_sort(scores, limit):
    values = np.array(scores, dtype=np.float32)
    expected = np.argsort(-values, kind="stable").tolist()
    assert best_first(values).tolist() == expected
    assert best_first(values, limit=limit).tolist() == expected[:limit]


def test_overlaps_are_those_of_torchvision():
    first, second = crowd(4, 50), crowd(5, 40)
    expected = torchvision.ops.box_iou(torch.tensor(first), torch.tensor(second)).numpy()
    np.testing.assert_allclose(overlaps(first, second), expected, rtol=1e-6)


def test_inclusive_corners_count_the_last_pixel():
    box = np.array([[10, 20, 10, 29]], dtype=np.float32)
    assert areas(box).tolist() == [0]
    assert areas(box, pixel=1).tolist() == [10]
    assert overlaps(box, box, pixel=1).tolist() == [[1]]
