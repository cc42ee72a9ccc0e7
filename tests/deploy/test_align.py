"""Aligned crops, against scikit-image's transform and against where points have to end up."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.faces import Faces
from slimface.deploy.align import TEMPLATE, align, aligned_crops, similarity, template
from slimface.errors import DataError, UsageError


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The template somewhere else."""
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return TEMPLATE @ turn.T + shift


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_transform_is_that_of_scikit_image(seed: int) -> None:
    transform = pytest.importorskip("skimage.transform")
    points = np.random.default_rng(seed).uniform(0, 300, (5, 2))
    expected = transform.SimilarityTransform.from_estimate(points, TEMPLATE)
    np.testing.assert_allclose(similarity(points, TEMPLATE), expected.params[:2], atol=1e-8)


@given(st.floats(-180, 180), st.floats(0.2, 20), st.floats(-500, 500), st.floats(-500, 500))
@settings(max_examples=40, deadline=None)
def test_a_turned_face_is_turned_back_exactly(
    degrees: float, scale: float, x: float, y: float
) -> None:
    points = turned(degrees, scale, (x, y))
    np.testing.assert_allclose(through(similarity(points, TEMPLATE), points), TEMPLATE, atol=1e-6)


def test_it_never_mirrors() -> None:
    mirrored = TEMPLATE * (-1, 1) + (112, 0)
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("scale", [0.7, 1.0, 4.3])
def test_landmarks_of_the_crop_are_where_the_template_says(scale: float) -> None:
    picture = np.zeros((700, 900, 3), np.uint8)
    points = turned(25, scale, (350.0, 80.0))
    for x, y in points:
        cv2.circle(picture, (round(16 * x), round(16 * y)), round(16 * 3 * scale), (255, 255, 255),
                   -1, cv2.LINE_AA, 4)  # fmt: skip
    crop = align(picture, points.astype(np.float32), 112)
    assert crop.shape == (112, 112, 3)
    for want in template(112):
        x, y = want.round().astype(int)
        part = crop[y - 6 : y + 7, x - 6 : x + 7, 0].astype(float)
        rows, columns = np.mgrid[y - 6 : y + 7, x - 6 : x + 7]
        found = np.array([(columns * part).sum(), (rows * part).sum()]) / part.sum()
        assert np.abs(found - want).max() < 0.6


def test_what_is_outside_the_picture_is_black_and_a_face_far_off_all_black() -> None:
    picture = np.full((60, 60, 3), 200, np.uint8)
    crop = align(picture, template(112).astype(np.float32) - 40, 112)
    assert crop[5, 5].tolist() == [0, 0, 0]
    assert crop[60, 60].tolist() == [200, 200, 200]
    assert not align(picture, template(112).astype(np.float32) + 5000, 112).any()


def test_faces_without_landmarks_have_no_crop() -> None:
    picture = np.zeros((120, 120, 3), np.uint8)
    points = np.stack([TEMPLATE, np.full((5, 2), np.nan), np.full((5, 2), 9.0)])
    faces = Faces.annotated(np.zeros((3, 4)), points)
    assert [number for number, _ in aligned_crops(picture, faces)] == [0]
    assert not list(aligned_crops(picture, Faces.none()))


def test_points_that_say_nothing_are_refused() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match="one point"):
        align(picture, np.full((5, 2), 3.0, np.float32))
    with pytest.raises(DataError, match="not a number"):
        align(picture, np.full((5, 2), np.nan, np.float32))
    with pytest.raises(UsageError, match="holds no face"):
        align(picture, TEMPLATE.astype(np.float32), 4)


def test_crops_are_sampled_as_opencv_samples_them() -> None:
    rng = np.random.default_rng(0)
    for degrees, scale in ((0, 0.7), (25, 0.9), (-80, 0.5), (170, 0.97)):
        picture = rng.integers(0, 256, size=(120, 150, 3), dtype=np.uint8)
        points = turned(degrees, scale, (30.0, 20.0))
        matrix = similarity(points, template(112))
        expected = cv2.warpAffine(picture, matrix, (112, 112), flags=cv2.INTER_LINEAR)
        difference = np.abs(align(picture, points, 112).astype(int) - expected)
        # In another order of sums, one value in a hundred is rounded to the other side.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.03
