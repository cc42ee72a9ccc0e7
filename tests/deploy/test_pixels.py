"""Resizing and sums without OpenCV, held against OpenCV: every bit has to be the same."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slimface.deploy.pixels import (
    area,
    linear,
    numpy_area,
    numpy_linear,
    numpy_rectangle_sums,
    rectangle_sums,
    resized,
    split,
)

SIDE = st.integers(1, 90)


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    """Noise; every third time black and white only, whose sums are the largest."""
    rng = np.random.default_rng(seed)
    values = np.array([0, 255] if seed % 3 == 0 else range(256), dtype=np.uint8)
    return rng.choice(values, size=(height, width, 3))


@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 99))
@example(1, 1, 7, 5, 0)
@example(90, 60, 45, 30, 0)
@example(90, 60, 45, 30, 1)
@example(2, 2, 1, 1, 1)
@example(60, 90, 30, 90, 1)
@example(10, 10, 90, 4, 2)
@settings(max_examples=150, deadline=None)
def test_linear_resizing_is_that_of_opencv(height, width, rows, columns, seed):
    picture = pixels(height, width, seed)
    expected = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(numpy_linear(picture, rows, columns), expected)


@pytest.mark.parametrize("size", [(480, 640), (333, 1000), (240, 320), (1, 1)])
def test_linear_resizing_of_a_whole_picture_is_that_of_opencv(size):
    picture = pixels(500, 700, 1)
    expected = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(numpy_linear(picture, *size), expected)


@given(SIDE, SIDE, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
@example(90, 60, 1.0, 0.5, 1)
@settings(max_examples=150, deadline=None)
def test_resizing_by_area_is_that_of_opencv(height, width, down, across, seed):
    picture = pixels(height, width, seed)
    rows, columns = max(1, int(height * down)), max(1, int(width * across))
    expected = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(numpy_area(picture, rows, columns), expected)


@pytest.mark.parametrize("blocks", [(2, 2), (3, 3), (4, 4), (2, 3), (5, 1), (7, 6)])
def test_means_of_whole_blocks_are_those_of_opencv(blocks):
    picture = pixels(12 * blocks[0], 9 * blocks[1], 1)
    expected = cv2.resize(picture, (9, 12), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(numpy_area(picture, 12, 9), expected)


@given(SIDE, SIDE, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_sums_are_those_of_opencv(height, width, seed):
    picture = pixels(height, width, seed)
    expected = cv2.integral(picture, sdepth=cv2.CV_32S)
    np.testing.assert_array_equal(numpy_rectangle_sums(picture), expected)


def test_sums_that_leave_32_bits_wrap_around():
    white = np.full((3000, 3000, 3), 255, dtype=np.uint8)
    sums = numpy_rectangle_sums(white)
    assert sums[-1, -1, 0] < 0
    np.testing.assert_array_equal(sums, cv2.integral(white, sdepth=cv2.CV_32S))


def test_a_view_into_a_larger_picture_is_resized_as_its_copy():
    view = pixels(80, 90, 1)[3:60, 5:77, ::-1]
    np.testing.assert_array_equal(numpy_linear(view, 31, 43), numpy_linear(view.copy(), 31, 43))
    np.testing.assert_array_equal(numpy_area(view, 31, 43), numpy_area(view.copy(), 31, 43))


def test_without_opencv_numpy_does_all_of_it(monkeypatch):
    picture = pixels(40, 50, 1)
    planes = [np.empty((40, 50), dtype=np.uint8) for _ in range(3)]

    def all_of_it() -> list[np.ndarray]:
        split(picture, planes)
        return [
            linear(picture, 33, 70),
            area(picture, 13, 17),
            resized(picture, 13, 17),
            resized(picture, 60, 17),
            rectangle_sums(picture),
            *(plane.copy() for plane in planes),
        ]

    expected = all_of_it()
    monkeypatch.setattr("slimface.deploy.pixels.cv2", None)
    for ours, theirs in zip(all_of_it(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_picture_of_the_size_asked_for_is_returned_as_it_is():
    picture = pixels(40, 50, 1)
    assert linear(picture, 40, 50) is picture
    assert area(picture, 40, 50) is picture
