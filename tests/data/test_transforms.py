"""Augmentation: faces move with their pixels, and samples are what the docstring promises."""

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from slimface.core.faces import Faces
from slimface.data.plan import MEAN_COLOUR, Recolour
from slimface.data.transforms import Augment, PlainAugment, RetinaFaceAugment, S3fdAugment

RED, BLUE = (220, 30, 30), (30, 40, 90)
QUIET = S3fdAugment(colour_share=0, min_area_px=100)


def scene(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A blue picture with one red face; its left third is darker, so that left is known."""
    picture = np.full((height, width, 3), BLUE, np.uint8)
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = RED
    picture[y1:y2, x1 : x1 + (x2 - x1) // 3] = (140, 30, 30)
    return picture


def redness(sample: np.ndarray) -> np.ndarray:
    return sample[..., 0].astype(int) - sample[..., 2]


@st.composite
def pictures(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    height, width = draw(st.integers(60, 500)), draw(st.integers(60, 500))
    side_x, side_y = draw(st.integers(12, width)), draw(st.integers(12, height))
    x, y = draw(st.integers(0, width - side_x)), draw(st.integers(0, height - side_y))
    return height, width, (x, y, x + side_x, y + side_y)


@pytest.mark.parametrize(
    "augment",
    [
        QUIET,
        S3fdAugment(colour_share=0, min_area_px=100, native_share=1),
        RetinaFaceAugment(colour_share=0, min_area_px=100),
        PlainAugment(min_area_px=100),
    ],
    ids=["s3fd", "native", "retinaface", "plain"],
)
@given(case=pictures(), seed=st.integers(0, 10_000), size=st.sampled_from([64, 160]))
@settings(max_examples=150, deadline=None)
def test_boxes_and_landmarks_move_with_their_pixels(
    augment: Augment, case: tuple[int, int, tuple[int, int, int, int]], seed: int, size: int
) -> None:
    height, width, box = case
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    eyes_and_mouth = [(box[0], box[1]), (box[2], box[1]), centre, (box[0], box[3]), box[2:]]
    faces = Faces.annotated([box], [eyes_and_mouth])
    sample, moved = augment(scene(height, width, box), faces, np.random.default_rng(seed), size)
    assert sample.shape == (size, size, 3)
    assert sample.dtype == np.uint8
    if not len(moved):
        return
    x1, y1, x2, y2 = moved.boxes[0]
    red = redness(sample) > 50
    # Filters spread an edge over a pixel or two, whatever the box.
    outside = red.copy()
    outside[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3] = False
    assert not outside.any()
    first, last = np.ceil((x1, y1)).astype(int) + 2, np.maximum(0, (int(x2) - 2, int(y2) - 2))
    inside = red[first[1] : last[1], first[0] : last[0]]
    assert inside.all()
    # The first of the two eyes is the left one as seen in the sample, mirrored or not.
    assert moved.landmarks is not None
    points = np.clip(moved.landmarks[0], 0, size)
    expected = [(x1, y1), (x2, y1), (x1, y2), (x2, y2)]
    np.testing.assert_allclose(points[[0, 1, 3, 4]], expected, atol=1e-3)


@pytest.mark.parametrize("augment", [QUIET, PlainAugment()], ids=["s3fd", "plain"])
def test_boxes_are_exact_to_a_fraction_of_a_pixel(augment: Augment) -> None:
    """The centre of mass of a red face is the centre of its box, on average over the filters."""
    box = (140, 120, 260, 270)
    picture = np.zeros((500, 640, 3), np.uint8)
    picture[120:270, 140:260, 0] = 250
    errors = []
    for seed in range(200):
        sample, moved = augment(picture, Faces.annotated([box]), np.random.default_rng(seed), 200)
        x1, y1, x2, y2 = moved.boxes[0] if len(moved) else (0, 0, 0, 0)
        if min(x1, y1) > 3 and max(x2, y2) < 197:
            weight = np.maximum(redness(sample), 0).astype(float)
            weight[(sample == MEAN_COLOUR).all(axis=-1)] = 0
            pixels = np.arange(200) + 0.5
            mass = (weight.sum(axis=0) @ pixels, weight.sum(axis=1) @ pixels) / weight.sum()
            errors.append(mass - ((x1 + x2) / 2, (y1 + y2) / 2))
    assert len(errors) > 50
    # Filters that skip pixels when they shrink are off by chance, to one side as to the other.
    assert np.abs(np.mean(errors, axis=0)).max() < 0.05
    assert np.abs(errors).max() < 0.6


def test_mirrored_and_straight_samples_both_occur_and_are_labelled_right() -> None:
    picture, box = scene(100, 100, (20, 30, 80, 90)), (20, 30, 80, 90)
    dark_left = 0
    for seed in range(40):
        sample, moved = PlainAugment()(
            picture, Faces.annotated([box]), np.random.default_rng(seed), 100
        )
        x1, _, x2, _ = moved.boxes[0].astype(int)
        dark_left += bool(sample[60, x1 + 5, 0] < sample[60, x2 - 5, 0])
    assert 10 < dark_left < 30


def test_no_face_whose_centre_is_outside_and_none_too_small_is_kept() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 560, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (300, 2))], axis=1)
    kept = 0
    for seed in range(60):
        plan = S3fdAugment(mirror=0).plan(
            (600, 600), Faces.annotated(boxes), np.random.default_rng(seed), 128
        )
        sides = plan.faces.boxes[:, 2:] - plan.faces.boxes[:, :2]
        assert (np.prod(sides, axis=1) > 36).all()
        assert (plan.faces.boxes >= 0).all()
        assert (plan.faces.boxes <= 128).all()
        kept += len(plan.faces)
    assert kept > 60


def test_square_crops_hold_a_whole_face_and_stay_inside_the_picture() -> None:
    augment = S3fdAugment(anchor_share=0, colour_share=0, mirror=0)
    faces = Faces.annotated([[100, 100, 140, 150], [300, 40, 320, 60]])
    for seed in range(50):
        plan = augment.plan((240, 400), faces, np.random.default_rng(seed), 128)
        x1, y1, x2, y2 = plan.source
        assert plan.target == (0, 0, 128, 128)
        assert abs((x2 - x1) - (y2 - y1)) <= 1
        assert 0.3 * 240 - 1 <= x2 - x1 <= 242
        covered = (faces.boxes[:, :2] >= (x1 - 1, y1 - 1)) & (
            faces.boxes[:, 2:] <= (x2 + 1, y2 + 1)
        )
        assert covered.all(axis=1).any()


def test_where_no_square_holds_a_face_the_whole_picture_is_shown() -> None:
    augment = S3fdAugment(anchor_share=0, colour_share=0, mirror=0)
    faces = Faces.annotated([[5, 10, 395, 90]])
    picture = scene(100, 400, (5, 10, 395, 90))
    sample, moved = augment(picture, faces, np.random.default_rng(1), 200)
    x1, y1, x2, y2 = moved.boxes[0]
    assert (x2 - x1, y2 - y1) == (195, 40)
    assert (sample == MEAN_COLOUR).all(axis=-1).mean() == pytest.approx(0.75)


def test_anchor_sampling_brings_faces_to_the_sizes_of_anchors() -> None:
    augment = S3fdAugment(anchor_share=1, colour_share=0, min_area_px=0)
    faces = Faces.annotated([[480, 480, 520, 520]])
    sides = []
    for seed in range(400):
        plan = augment.plan((1000, 1000), faces, np.random.default_rng(seed), 640)
        assert len(plan.faces) == 1
        sides.append(float(plan.faces.heights[0]))
    # The nearest anchor of 41 pixels is 32, one step above is 64: from 16 / 2 to 64 * 2.
    assert 7.5 < min(sides) < 10
    assert 110 < max(sides) < 130
    assert 0.25 < np.mean(np.array(sides) < 20) < 0.5


def test_native_windows_show_faces_at_about_their_own_size() -> None:
    augment = S3fdAugment(native_share=1, colour_share=0, min_area_px=0)
    # The second face is larger than the sample: some of it is shown.
    faces = Faces.annotated([[40, 40, 80, 80], [300, 100, 900, 700]])
    seen = []
    for seed in range(200):
        plan = augment.plan((800, 1000), faces, np.random.default_rng(seed), 320)
        assert plan.target == (0, 0, 320, 320)
        seen.append((plan.source[2] - plan.source[0]) / 320)
    assert 0.5**0.5 < min(seen) < 0.75 and 1.35 < max(seen) < 2**0.5 + 0.01


def test_anchor_sampling_never_pads_where_there_are_pixels() -> None:
    augment = S3fdAugment(anchor_share=1, colour_share=0, sizes=(64,))
    faces = Faces.annotated([[0, 0, 60, 60]])
    for seed in range(50):
        plan = augment.plan((900, 900), faces, np.random.default_rng(seed), 320)
        assert plan.target == (0, 0, 320, 320)


def test_reduced_decoding_shows_the_same() -> None:
    """A plan for a picture decoded at a fraction agrees with the plan for the whole one."""
    rng = np.random.default_rng(5)
    smooth = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (1280, 960))
    faces = Faces.annotated([[300, 200, 700, 640], [900, 100, 960, 170]])
    used = set()
    for seed in range(60):
        plans = [
            QUIET.plan((960, 1280), faces, np.random.default_rng(seed), 96, reduce=reduce)
            for reduce in (False, True)
        ]
        r = plans[1].reduction
        used.add(r)
        reduced = cv2.resize(smooth, (1280 // r, 960 // r), interpolation=cv2.INTER_AREA)
        whole, small = plans[0].render(smooth), plans[1].render(reduced)
        np.testing.assert_allclose(plans[0].faces.boxes, plans[1].faces.boxes, atol=1.1)
        assert np.abs(whole.astype(int) - small).mean() < 4
        x1, _, x2, _ = plans[1].source
        assert (x2 - x1) >= 95 or plans[1].target != (0, 0, 96, 96)
    assert {1, 2, 4} <= used


@pytest.mark.parametrize("augment", [S3fdAugment(), PlainAugment()])
def test_equal_generators_give_equal_samples(augment: Augment) -> None:
    picture, faces = scene(90, 130, (20, 20, 60, 70)), Faces.annotated([[20, 20, 60, 70]])
    for seed in range(5):
        first = augment(picture, faces, np.random.default_rng(seed), 64)
        second = augment(picture, faces, np.random.default_rng(seed), 64)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1].boxes, second[1].boxes)


def test_the_picture_handed_in_stays_as_it_is() -> None:
    picture = scene(100, 100, (20, 20, 60, 70))
    before = picture.copy()
    for seed in range(20):
        S3fdAugment()(
            picture, Faces.annotated([[20, 20, 60, 70]]), np.random.default_rng(seed), 100
        )
    np.testing.assert_array_equal(picture, before)


def test_colours_change_as_their_names_say() -> None:
    picture = np.full((8, 8, 3), (150, 100, 60), np.uint8)
    picture[:4] = (90, 60, 36)
    np.testing.assert_array_equal(Recolour()(picture), picture)
    np.testing.assert_allclose(Recolour(brightness=1.1)(picture), picture * 1.1, atol=1)
    grey = Recolour(saturation=0)(picture)
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    expected = picture @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey[..., 0], expected, atol=1)
    flat = Recolour(contrast=0.5)(picture).astype(int)
    np.testing.assert_allclose(flat[7, 0] - flat[0, 0], (picture[7, 0] - picture[0, 0]) / 2, atol=1)
    np.testing.assert_allclose(flat.mean(), picture.mean(), atol=4)
    turned = Recolour(hue_degrees=20)(picture)[7, 0] / 255
    hue, other = (colorsys.rgb_to_hsv(*c)[0] * 360 for c in (picture[7, 0] / 255, turned))
    assert 8 < abs(other - hue) < 32


def test_brightness_contrast_and_saturation_commute() -> None:
    picture = np.random.default_rng(0).integers(90, 160, (32, 32, 3)).astype(np.uint8)
    at_once = Recolour(brightness=1.1, contrast=0.8, saturation=0.7, hue_degrees=9)(picture)
    one_by_one = picture
    for change in (
        Recolour(hue_degrees=9),
        Recolour(saturation=0.7),
        Recolour(contrast=0.8),
        Recolour(brightness=1.1),
    ):
        one_by_one = change(one_by_one)
    # Each change rounds, and takes the mean from every fourth pixel.
    np.testing.assert_allclose(at_once.astype(int), one_by_one, atol=3)


def test_a_recipe_spells_the_same_value() -> None:
    read = TypeAdapter(Augment).validate_python({"kind": "s3fd", "anchor_share": 0.25})
    assert read == S3fdAugment(anchor_share=0.25)
    assert TypeAdapter(Augment).validate_python({"kind": "plain"}) == PlainAugment()
    with pytest.raises(ValidationError):
        TypeAdapter(Augment).validate_python({"kind": "s3fd", "mirror": 1.5})


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (33, 2000)])
def test_extreme_pictures_give_a_sample(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), np.uint8)
    faces = Faces.annotated([[0, 0, shape[1], shape[0]]])
    for seed in range(20):
        for augment in (S3fdAugment(), PlainAugment()):
            sample, _ = augment(picture, faces, np.random.default_rng(seed), 64)
            assert sample.shape == (64, 64, 3)


def test_a_picture_without_faces_gives_a_sample_without_faces() -> None:
    picture = np.zeros((80, 100, 3), np.uint8)
    sample, moved = S3fdAugment()(picture, Faces.none(), np.random.default_rng(0), 64)
    assert sample.shape == (64, 64, 3)
    assert len(moved) == 0


def test_crops_of_retinaface_hold_a_whole_face() -> None:
    boxes = np.array([[200, 180, 212, 190], [300, 200, 311, 214]], dtype=np.float32)
    augment = RetinaFaceAugment(mirror=0)
    shares = set()
    for seed in range(100):
        plan = augment.plan((400, 600), Faces.annotated(boxes), np.random.default_rng(seed), 64)
        x1, y1, x2, y2 = plan.source
        shares.add(round((x2 - x1) / 400 / 0.05) * 0.05)
        assert ((boxes[:, :2] >= (x1, y1)) & (boxes[:, 2:] <= (x2, y2))).all(axis=1).any()
    assert {round(share, 2) for share in shares} == {0.3, 0.45, 0.6, 0.8, 1.0}


def test_a_picture_no_crop_fits_is_shown_whole_at_the_upper_left() -> None:
    faces = Faces.annotated([[0, 0, 90, 30]])
    plan = RetinaFaceAugment(mirror=0).plan((30, 90), faces, np.random.default_rng(0), 90)
    assert (plan.source, plan.target) == ((0, 0, 90, 30), (0, 0, 90, 30))
    np.testing.assert_allclose(plan.faces.boxes, faces.boxes)


def test_landmarks_outside_a_crop_stay_where_they_are_and_missing_ones_stay_missing() -> None:
    points = np.full((2, 5, 2), 55.0, dtype=np.float32)
    points[0, 0] = (4.0, 50.0)
    points[1] = np.nan
    faces = Faces.annotated([[4, 30, 120, 90], [50, 50, 60, 60]], points)
    augment = RetinaFaceAugment(mirror=0, shares=(0.5,), colour_share=0)
    for seed in range(20):
        plan = augment.plan((160, 160), faces, np.random.default_rng(seed), 80)
        for box, five in zip(plan.faces.boxes, plan.faces.landmarks, strict=True):
            assert np.isnan(five).all() == (box[2] - box[0] <= 11)
            if np.isfinite(five).all():
                assert five[0, 0] == pytest.approx(five[1, 0] - 51, abs=1.5)


def test_a_shift_of_colour_comes_first() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert (Recolour(shift=20, brightness=1.5)(grey) == 180).all()
    assert (Recolour(shift=-30)(grey) == 70).all()
