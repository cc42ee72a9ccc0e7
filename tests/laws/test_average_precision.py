"""What no evaluation may depend on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.faces import Faces
from slimface.evaluate.average_precision import match
from slimface.evaluate.truth import Truth


def drawn_case(seed):
    """Noisy detections of drawn faces on eight pictures, with ties in their scores."""
    draws = np.random.default_rng(seed)
    counts = draws.integers(0, 7, 8)
    corner = draws.uniform(0, 200, (counts.sum(), 2))
    boxes = np.hstack([corner, corner + draws.uniform(8, 50, corner.shape)])
    names = tuple(f"{i}.jpg" for i in range(8))
    counting = {"all": draws.random(len(boxes)) < 0.8}
    truth = Truth("drawn", names, counts, boxes, counting, 8, empty_pictures_count=False)
    detections = []
    for i, count in enumerate(counts):
        own = boxes[counts[:i].sum() : counts[: i + 1].sum()]
        near = own[draws.integers(0, count, 3 * count)] + draws.normal(0, 3, (3 * count, 4))
        far = draws.uniform(0, 200, (4, 4))
        scores = np.sort(draws.integers(0, 65, len(near) + 4) / 64)[::-1]
        detections.append(Faces(np.float32(np.concatenate([near, far])), scores.astype(np.float32)))
    return detections, truth


def figure(detections, truth, **options):
    return match(detections, truth, **options).curve(truth.counting["all"]).average_precision


INCREASING = {
    "cube": lambda scores: scores**3,
    "exponential": np.exp,
    "logarithm": lambda scores: np.log(scores + 0.5),
    "tiny": lambda scores: scores / 1024,
}


@pytest.mark.parametrize("name", INCREASING)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_increasing_maps_of_the_scores_change_nothing(name, seed):
    detections, truth = drawn_case(seed)
    mapped = [replace(faces, scores=INCREASING[name](faces.scores)) for faces in detections]
    expected = figure(detections, truth, thresholds=None)
    np.testing.assert_equal(figure(mapped, truth, thresholds=None), expected)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_stretching_and_shifting_the_scores_changes_nothing_officially(seed):
    """A thousand equidistant thresholds allow no more than that; see the next test."""
    detections, truth = drawn_case(seed)
    mapped = [replace(faces, scores=faces.scores / 4 + 0.5) for faces in detections]
    np.testing.assert_equal(figure(mapped, truth), figure(detections, truth))


def test_the_official_thresholds_do_see_how_scores_are_spread():
    detections, truth = drawn_case(1)
    squeezed = [replace(faces, scores=faces.scores ** np.float32(40)) for faces in detections]
    assert figure(squeezed, truth) != figure(detections, truth)


@given(seed=st.integers(0, 10_000), order=st.permutations(range(8)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_pictures_changes_nothing(seed, order):
    detections, truth = drawn_case(seed)
    ends = np.cumsum(truth.counts)
    faces = np.concatenate([np.arange(ends[i] - truth.counts[i], ends[i]) for i in order])
    shuffled = replace(
        truth,
        names=tuple(truth.names[i] for i in order),
        counts=truth.counts[order],
        boxes=truth.boxes[faces.astype(int)],
        counting={"all": truth.counting["all"][faces.astype(int)]},
    )
    moved = [detections[i] for i in order]
    np.testing.assert_equal(figure(moved, shuffled), figure(detections, truth))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_detection_below_all_others_never_raises_the_figure_unless_it_finds_a_face(seed):
    detections, truth = drawn_case(seed)
    miss = Faces(np.float32([[900, 900, 950, 950]]), np.float32([-1]))
    worse = [
        Faces(np.vstack([f.boxes, miss.boxes]), np.append(f.scores, miss.scores))
        for f in detections
    ]
    np.testing.assert_allclose(
        figure(worse, truth, thresholds=None),
        figure(detections, truth, thresholds=None),
        rtol=0,
        atol=1e-12,
    )
