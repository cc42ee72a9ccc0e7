import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.faces import Faces
from slimface.evaluate.average_precision import match
from slimface.evaluate.truth import Truth

plain_average_precision = runpy.run_path(str(Path(__file__).with_name("plain_loop.py")))[
    "average_precision"
]


def truth_of(boxes, counting=None, *, empty_pictures_count=False):
    """Truth with one subset, "all", from lists of corner boxes for each picture."""
    counts = np.array([len(part) for part in boxes], dtype=np.intp)
    flat = np.array([box for part in boxes for box in part], dtype=float).reshape(-1, 4)
    flags = [flag for part in counting for flag in part] if counting else [True] * len(flat)
    names = tuple(f"event/{i}.jpg" for i in range(len(boxes)))
    mask = {"all": np.array(flags, dtype=bool)}
    return Truth("drawn", names, counts, flat, mask, len(boxes), empty_pictures_count)


def found(*rows):
    """Detections from rows of box and score."""
    boxes = np.array([box for box, _ in rows], dtype=np.float32).reshape(-1, 4)
    return Faces(boxes, np.array([score for _, score in rows], dtype=np.float32))


def curve_of(detections, truth, **options):
    return match(detections, truth, **options).curve(truth.counting["all"])


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NOWHERE, ELSEWHERE = (70, 0, 80, 10), (90, 0, 99, 10)


def test_two_hits_and_a_miss_by_hand():
    """Hits at ranks 1 and 3 of 4 detections, 3 faces: (1/1 + 2/3) / 3."""
    detections = [found((A, 0.9), (NOWHERE, 0.8), (B, 0.7), (ELSEWHERE, 0.6))]
    curve = curve_of(detections, truth_of([[A, B, C]]))
    assert curve.average_precision == pytest.approx((1 + 2 / 3) / 3, abs=1e-12)


def test_every_face_found_and_nothing_else_is_one():
    curve = curve_of([found((A, 0.9)), found((B, 0.2))], truth_of([[A], [B]]))
    assert curve.average_precision == 1


def test_a_second_hit_on_a_face_is_wrong():
    """The second box on A comes before B: (1/1 + 2/3) / 2."""
    detections = [found((A, 0.9), (A, 0.8), (B, 0.7))]
    curve = curve_of(detections, truth_of([[A, B]]))
    assert curve.average_precision == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)


def test_a_face_that_does_not_count_takes_its_detections_with_it():
    detections = [found((B, 0.9), (B, 0.8), (A, 0.7))]
    curve = curve_of(detections, truth_of([[A, B]], [[True, False]]))
    assert curve.average_precision == 1


def test_of_two_faces_that_are_overlapped_alike_the_first_is_met():
    curve = curve_of([found((A, 0.9))], truth_of([[A, A]], [[True, False]]))
    assert curve.average_precision == 1


def test_faces_of_pictures_without_detections_count():
    curve = curve_of([found((A, 0.9)), Faces.none()], truth_of([[A], [B]]))
    assert curve.average_precision == 0.5


def test_corners_are_inclusive():
    """Ten columns against five: 1/2 with the last pixel counted would be 5/10, without 4/9."""
    curve = curve_of([found(((0, 0, 4, 9), 0.9))], truth_of([[(0, 0, 9, 9)]]))
    assert curve.average_precision == 1


def test_equal_scores_of_a_picture_enter_together():
    """A and a miss share a score, so precision is 1/2 as soon as anything is found."""
    curve = curve_of([found((NOWHERE, 0.5), (A, 0.5))], truth_of([[A]]))
    assert curve.average_precision == 0.5


def test_one_score_for_all_is_one_threshold():
    detections = [found((A, 0.5)), found((NOWHERE, 0.5), (B, 0.5))]
    curve = curve_of(detections, truth_of([[A], [B]]))
    assert curve.average_precision == pytest.approx(2 / 3)


def test_pictures_without_faces_are_passed_by_as_the_official_tools_do():
    detections = [found((A, 0.5)), found((NOWHERE, 0.9))]
    assert curve_of(detections, truth_of([[A], []])).average_precision == 1


def test_pictures_without_faces_count_where_the_truth_says_so():
    detections = [found((A, 0.5)), found((NOWHERE, 0.9))]
    truth = truth_of([[A], []], empty_pictures_count=True)
    assert curve_of(detections, truth).average_precision == 0.5


def test_nothing_to_find_has_no_average_precision():
    truth = truth_of([[A]], [[False]])
    assert np.isnan(curve_of([found((A, 0.5))], truth).average_precision)


def test_nothing_found_is_zero():
    assert curve_of([Faces.none()], truth_of([[A]])).average_precision == 0


def test_a_range_of_heights_does_not_answer_for_mistakes_of_another_size():
    tall_miss = ((70, 0, 80, 300), 0.95)
    truth = truth_of([[A]])
    matches = match([found(tall_miss, (A, 0.9))], truth)
    counting = truth.counting["all"]
    assert matches.curve(counting).average_precision == 0.5
    assert matches.curve(counting, heights_px=(0, 16)).average_precision == 1


def test_tables_of_pictures_sum_to_the_curve():
    truth = truth_of([[A], [B, C]], [[True], [True, False]])
    detections = [found((A, 0.9), (NOWHERE, 0.4)), found((B, 0.7), (C, 0.6), (B, 0.1))]
    matches = match(detections, truth)
    curve = matches.curve(truth.counting["all"])
    found_table, kept_table = matches.tables(truth.counting["all"])
    np.testing.assert_array_equal(found_table.sum(axis=0).cumsum(), curve.found)
    np.testing.assert_array_equal(kept_table.sum(axis=0).cumsum(), curve.kept)


def test_a_box_turned_inside_out_meets_nothing():
    detections = [found(((30, 30, 10, 10), 0.9), (A, 0.8))]
    assert curve_of(detections, truth_of([[A]])).average_precision == 0.5


corners = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
scores = st.integers(0, 8).map(lambda eighths: eighths / 8)
pictures = st.tuples(
    st.lists(st.tuples(corners, st.booleans()), max_size=5),
    st.lists(st.tuples(corners, scores), max_size=8),
)


@given(st.lists(pictures, min_size=1, max_size=4), st.booleans())
@settings(max_examples=120, deadline=None)
def test_it_equals_the_plain_loops(drawn, is_sorted):
    faces = [[box for box, _ in annotated] for annotated, _ in drawn]
    counting = [[flag for _, flag in annotated] for annotated, _ in drawn]
    rows = [sorted(d, key=lambda row: -row[1]) if is_sorted else d for _, d in drawn]
    curve = curve_of([found(*part) for part in rows], truth_of(faces, counting), thresholds=40)
    expected = (
        plain_average_precision(rows, faces, counting, thresholds=40)
        if any(map(any, counting))
        else np.nan
    )
    np.testing.assert_allclose(curve.average_precision, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_plain_loops_at_a_thousand_thresholds(seed):
    draws = np.random.default_rng(seed)
    faces, counting, rows = [], [], []
    for _ in range(12):
        corner = draws.uniform(0, 300, (draws.integers(0, 9), 2))
        faces.append(np.hstack([corner, corner + draws.uniform(5, 60, corner.shape)]).tolist())
        counting.append((draws.random(len(corner)) < 0.7).tolist())
        near = [np.add(box, draws.normal(0, 3, 4)) for box in faces[-1] for _ in range(3)]
        near = np.float32([*near, *draws.uniform(0, 300, (6, 4))]).reshape(-1, 4)
        ranked = np.sort(draws.random(len(near)).astype(np.float32))[::-1]
        rows.append(list(zip(near.tolist(), ranked.tolist(), strict=True)))
    curve = curve_of([found(*part) for part in rows], truth_of(faces, counting))
    expected = plain_average_precision(rows, faces, counting)
    assert 0.1 < expected < 1
    assert curve.average_precision == pytest.approx(expected, abs=1e-9)
