import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.core.record import Multiscale, Original
from slimface.data.drawn import Drawn, write_drawn
from slimface.data.landmarks import LABELS, with_landmarks
from slimface.data.widerface import read_widerface
from slimface.errors import DataError, UsageError
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.landmarks import landmark_error, match_faces
from slimface.evaluate.truth import Truth
from slimface.model import eresfd, retinaface
from slimface.model.build import build
from slimface.model.predictor import pipeline

POINTS = np.array([[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]], dtype=np.float32)


def faces(*shifts, landmarks=POINTS):
    """Faces of 40 pixels, moved to the right; scores fall."""
    boxes = [[x, 0, x + 40, 40] for x in shifts]
    points = [landmarks + np.array([x, 0]) for x in shifts]
    scores = np.linspace(0.9, 0.5, len(shifts), dtype=np.float32)
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Faces(corners, scores, np.array(points, dtype=np.float32).reshape(-1, 5, 2))


def test_the_error_is_the_mean_distance_over_that_of_the_eyes():
    found = faces(0)
    found.landmarks[0, 2] += (3, 4)
    error = landmark_error([found], [faces(0)])
    assert error.mean == pytest.approx(5 / 5 / 20)
    assert (error.faces, error.annotated, error.failures) == (1, 1, 0)


def test_faces_that_are_missed_are_not_measured_but_counted():
    error = landmark_error([faces(0), faces()], [faces(0, 200), faces(0)])
    assert (error.mean, error.faces, error.annotated) == (0, 1, 3)


def test_the_best_detection_takes_a_face_and_each_face_is_taken_once():
    found = faces(2, 0)
    assert match_faces(found, faces(0, 100)) == [(0, 0)]
    assert landmark_error([found], [faces(0)]).mean == pytest.approx(2 / 20)


def test_faces_without_landmarks_take_their_detection_along():
    known = faces(0, 10)
    known.landmarks[0] = np.nan
    error = landmark_error([faces(0)], [known])
    assert (error.mean, error.faces, error.annotated) == (None, 0, 1)


def test_failures_are_shares():
    found = faces(0, 100)
    found.landmarks[1] += (0, 2.5)
    error = landmark_error([found], [faces(0, 100)])
    assert (error.failures, error.median) == (0.5, pytest.approx(0.0625))


def test_nothing_to_measure_is_said():
    bare = Faces.annotated([[0, 0, 9, 9]])
    with pytest.raises(DataError, match="No face of these pictures has annotated landmarks"):
        landmark_error([faces(0)], [bare])
    with pytest.raises(UsageError, match="without landmarks"):
        landmark_error([Faces.annotated([[0, 0, 40, 40]])], [faces(0)])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_drawn(Drawn(count=2, height_px=96, width_px=96, largest_share=0.6, seed=1), root, "val")
    return with_landmarks(read_widerface(root, "val"), root / "WIDER_val" / LABELS)


class Knowing:
    """Finds what is annotated, a pixel too low."""

    spec = retinaface.retinaface()

    def __init__(self, pictures):
        self.answers = {}
        self.calls = 0
        for one in pictures:
            self.answers[len(self.answers)] = one.faces.moved(shift=(0, 1))

    def detect(self, picture, settings=None):
        self.calls += 1
        return self.answers[self.calls - 1]


def test_an_interrupted_evaluation_keeps_landmarks(drawn, tmp_path):
    truth = Truth.of(drawn)
    options = {"folder": tmp_path, "fingerprint": "f", "resamples": 0, "landmarks": True}
    knowing = Knowing(drawn)
    first = evaluate(knowing, drawn, truth, rule=Original(), **options)
    again = evaluate(knowing, drawn, truth, rule=Original(), **options)
    assert knowing.calls == len(drawn)
    assert again.landmarks == first.landmarks
    assert first.landmarks.faces > 0
    assert first.landmarks.mean > 0
    assert first.model_validate_json(first.model_dump_json()) == first


def test_what_cannot_be_measured_is_refused_before_the_work(drawn):
    boxes_only = pipeline(build(eresfd.naver(width=4), seed=0), name="x")
    with pytest.raises(UsageError, match="boxes without landmarks"):
        evaluate(boxes_only, drawn, Truth.of(drawn), landmarks=True, resamples=0)
    knowing = Knowing(drawn)
    with pytest.raises(UsageError, match="Voting"):
        evaluate(
            knowing, drawn, Truth.of(drawn), rule=Multiscale(), fingerprint="f", landmarks=True
        )
    assert knowing.calls == 0
