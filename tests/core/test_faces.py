import json

import numpy as np
import pytest

from slimface.core.faces import LANDMARK_NAMES, Faces


def two_faces(*, landmarks: bool = True) -> Faces:
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2) if landmarks else None
    boxes = np.array([[10, 20, 30, 50], [5, 5, 9, 9]], dtype=np.float32)
    return Faces(boxes, np.array([0.9, 0.2], dtype=np.float32), points)


def test_annotated_faces_have_a_score_of_one():
    faces = Faces.annotated([[0, 0, 4, 8]])
    assert faces.scores.tolist() == [1]
    assert faces.heights.tolist() == [8]


def test_none_is_no_face():
    assert len(Faces.none()) == 0
    assert Faces.none().boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "scores", "landmarks"),
    [((2, 4), (3,), None), ((2, 5), (2,), None), ((2, 4), (2,), (1, 5, 2))],
)
def test_shapes_that_do_not_fit_are_refused(boxes, scores, landmarks):
    points = None if landmarks is None else np.zeros(landmarks, np.float32)
    with pytest.raises(ValueError, match=r"shape|fit"):
        Faces(np.zeros(boxes, np.float32), np.zeros(scores, np.float32), points)


def test_selecting_keeps_what_belongs_together():
    second = two_faces().select([1])
    assert second.boxes.tolist() == [[5, 5, 9, 9]]
    assert second.landmarks is not None
    assert second.landmarks[0, 0].tolist() == [10, 11]


def test_above_includes_the_score_itself():
    assert len(two_faces().above(0.9)) == 1
    assert len(two_faces().above(0.95)) == 0


def test_moving_scales_then_shifts_x_and_y():
    moved = two_faces().moved(scale=(2, 3), shift=(1, -1))
    assert moved.boxes[0].tolist() == [21, 59, 61, 149]
    assert moved.landmarks is not None
    assert moved.landmarks[0, 1].tolist() == [5, 8]


def test_mirroring_swaps_left_and_right():
    mirrored = two_faces().mirrored(100)
    assert mirrored.boxes[0].tolist() == [70, 20, 90, 50]
    assert mirrored.landmarks is not None
    # The mirrored left eye is where the right eye was: x = 2, y = 3.
    assert mirrored.landmarks[0, 0].tolist() == [98, 3]


def test_mirroring_twice_changes_nothing():
    faces = two_faces()
    again = faces.mirrored(64).mirrored(64)
    np.testing.assert_array_equal(again.boxes, faces.boxes)
    np.testing.assert_array_equal(again.landmarks, faces.landmarks)


def test_rows_are_ready_for_json_and_leave_out_unknown_points():
    faces = two_faces()
    assert faces.landmarks is not None
    faces.landmarks[1] = np.nan
    rows = json.loads(json.dumps(faces.as_rows(), allow_nan=False))
    assert rows[0]["box"] == [10, 20, 30, 50]
    assert list(rows[0]["landmarks"]) == list(LANDMARK_NAMES)
    assert "landmarks" not in rows[1]


def test_faces_become_detections_of_supervision():
    pytest.importorskip("supervision")
    detections = two_faces(landmarks=False).to_supervision()
    assert detections.xyxy.tolist() == two_faces().boxes.tolist()
    assert detections.confidence.tolist() == two_faces().scores.tolist()
