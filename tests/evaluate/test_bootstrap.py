import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.evaluate.average_precision import match
from slimface.evaluate.bootstrap import difference, interval, resample
from slimface.evaluate.truth import Truth


def case(pictures, *, seed=0, skill=0.8):
    """Each picture has one or two faces; each is found with probability ``skill``."""
    draws = np.random.default_rng(seed)
    counts = draws.integers(1, 3, pictures)
    places = np.concatenate([np.arange(count) for count in counts]) * 50.0
    boxes = np.stack([places, 0 * places, places + 20, 0 * places + 20], axis=1)
    counting = {"all": np.ones(len(boxes), dtype=bool)}
    names = tuple(map(str, range(pictures)))
    truth = Truth("drawn", names, counts, boxes, counting, pictures, empty_pictures_count=False)
    detections = []
    for i, count in enumerate(counts):
        own = boxes[counts[:i].sum() : counts[: i + 1].sum()]
        shift = 200 * (draws.random(count) > skill)
        moved = np.float32(own + shift[:, None])
        detections.append(Faces(moved, np.sort(np.float32(draws.random(count)))[::-1]))
    return detections, truth


def test_a_resample_is_the_evaluation_of_the_pictures_drawn():
    """The same draws, one data set after the other, each a list of repeated pictures."""
    detections, truth = case(7)
    matches = match(detections, truth)
    counting = truth.counting["all"]
    drawn = resample(matches, counting, resamples=5, seed=3)
    found, kept = matches.tables(counting)
    chosen = np.random.default_rng(3).integers(0, 7, (5, 7))
    for figure, places in zip(drawn, chosen, strict=True):
        recall = found[places].sum(axis=0).cumsum() / truth.counts[places].sum()
        precision = found[places].sum(axis=0).cumsum() / kept[places].sum(axis=0).cumsum().clip(1)
        envelope = [precision[i:].max() for i in range(len(precision))]
        assert figure == pytest.approx(np.sum(np.diff(recall, prepend=0) * envelope), abs=1e-6)


def test_the_same_seed_draws_the_same_pictures_for_every_model():
    (detections, truth), counting = case(20), case(20)[1].counting["all"]
    matches = match(detections, truth)
    first, again = (resample(matches, counting, resamples=50, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, resample(matches, counting, resamples=50, seed=2))


def test_the_interval_holds_the_figure_and_narrows_with_more_pictures():
    widths = []
    for pictures in (30, 480):
        detections, truth = case(pictures)
        matches = match(detections, truth)
        counting = truth.counting["all"]
        low, high = interval(resample(matches, counting, resamples=400))
        assert low < matches.curve(counting).average_precision < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5


def test_draws_without_a_face_have_no_figure_and_do_not_spoil_the_interval():
    detections, truth = case(2)
    counting = np.arange(len(truth.boxes)) == 0
    drawn = resample(match(detections, truth), counting, resamples=100)
    assert np.isnan(drawn).any()
    assert np.isfinite(interval(drawn)).all()


def test_no_resamples_give_no_interval():
    detections, truth = case(3)
    drawn = resample(match(detections, truth), truth.counting["all"], resamples=0)
    assert np.isnan(interval(drawn)).all()


def test_pairs_see_a_difference_that_intervals_alone_would_hide():
    worse, truth = case(60, skill=0.7)
    better = [
        Faces(np.float32(box), faces.scores)
        for faces, box in zip(
            worse, np.split(truth.boxes, np.cumsum(truth.counts)[:-1]), strict=True
        )
    ]
    some = worse[:42] + better[42:]
    counting = truth.counting["all"]
    first, second = (resample(match(d, truth), counting, resamples=300) for d in (worse, some))
    assert interval(first)[1] > interval(second)[0]
    found = difference(first, second)
    assert found.low > 0
    assert found.doubt < 0.05


def test_a_model_does_not_differ_from_itself():
    detections, truth = case(20)
    drawn = resample(match(detections, truth), truth.counting["all"], resamples=50)
    assert difference(drawn, drawn) == (0, 0, 1)
