"""Drawn scenes: the same every time, and the truth is true."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from slimface.core.boxes import overlaps
from slimface.data import drawn_face
from slimface.data.drawn import Drawn, draw, write_drawn
from slimface.data.drawn_face import Pose, draw_head
from slimface.data.drawn_portraits import portraits
from slimface.data.landmarks import LABELS, with_landmarks
from slimface.data.widerface import read_widerface
from slimface.errors import DataError

SCENES = Drawn(count=40, height_px=192, width_px=256, seed=7)


def test_equal_specs_draw_equal_scenes_in_any_order() -> None:
    forward = [draw(SCENES, i)[0].tobytes() for i in range(5)]
    backward = [draw(SCENES, i)[0].tobytes() for i in reversed(range(5))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 5


def test_another_seed_draws_other_scenes() -> None:
    other = SCENES.model_copy(update={"seed": 8})
    assert draw(SCENES, 0)[0].tobytes() != draw(other, 0)[0].tobytes()


def test_a_scene_keeps_to_its_spec() -> None:
    spec = Drawn(count=30, height_px=200, width_px=300, fewest=1, most=4, smallest_px=20)
    for index in range(spec.count):
        picture, faces = draw(spec, index)
        assert picture.shape == (200, 300, 3)
        assert picture.dtype == np.uint8
        assert 1 <= len(faces) <= 4
        # A tilted oval is a little lower or higher than an upright one.
        assert (faces.heights >= 0.9 * 20 - 1).all()
        assert (faces.heights <= 1.05 * spec.largest_px + 1).all()
        assert (faces.boxes == np.rint(faces.boxes)).all()
        assert (faces.boxes[:, :2] >= 0).all()
        assert (faces.boxes[:, 2:] <= (300, 200)).all()


def test_landmarks_are_where_a_face_has_them() -> None:
    for index in range(SCENES.count):
        _, faces = draw(SCENES, index)
        assert faces.landmarks is not None
        left, right, nose, left_mouth, right_mouth = np.moveaxis(faces.landmarks, 1, 0)
        low, high = faces.boxes[:, None, :2], faces.boxes[:, None, 2:]
        assert ((faces.landmarks >= low) & (faces.landmarks <= high)).all()
        assert (left[:, 0] < right[:, 0]).all()
        assert (left_mouth[:, 0] < right_mouth[:, 0]).all()
        assert (nose[:, 1] > (left[:, 1] + right[:, 1]) / 2).all()
        assert (nose[:, 1] < (left_mouth[:, 1] + right_mouth[:, 1]) / 2).all()


def test_faces_hardly_hide_each_other() -> None:
    for index in range(SCENES.count):
        _, faces = draw(SCENES, index)
        shared = overlaps(faces.boxes, faces.boxes)
        np.fill_diagonal(shared, 0)
        assert shared.max(initial=0) < 0.3


@pytest.mark.parametrize("tilt", [-0.35, 0.0, 0.25])
@pytest.mark.parametrize("height", [14.0, 40.3, 111.0])
def test_the_box_is_the_box_of_the_painted_oval(
    height: float, tilt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paint the oval alone, as draw_head does, and measure the pixels."""
    pose = Pose(80.3, 90.7, height, 0.8 * height, tilt, 0.1)
    canvas = np.zeros((180, 160, 3), np.uint8)
    brush = drawn_face._Brush(canvas, pose)
    brush.fill(drawn_face._OVAL, np.array([255.0, 255, 255]))
    rows = np.flatnonzero((canvas[..., 0] > 127).any(axis=1))
    columns = np.flatnonzero((canvas[..., 0] > 127).any(axis=0))
    painted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(pose.box() - painted).max() <= 1


def test_the_pixels_of_a_head_change_where_its_box_is() -> None:
    pose = Pose(100, 100, 80, 64, 0.0, 0.0)
    before = np.full((200, 200, 3), 40, np.uint8)
    after = before.copy()
    draw_head(after, pose, np.random.default_rng(3))
    x1, y1, x2, y2 = pose.box().astype(int)
    changed = (after != before).any(axis=-1)
    assert changed[y1 + 20 : y2 - 20, x1 + 8 : x2 - 8].all()
    assert not changed[: y1 - 40].any()


def test_a_portrait_is_pasted_where_its_box_says() -> None:
    """Find the face by matching the photograph itself."""
    portrait = portraits()[0]
    if portrait is None:
        pytest.skip("scikit-image is not installed")
    canvas = np.full((400, 400, 3), 128, np.uint8)
    box, points = portrait.paste(canvas, 211.4, 180.2, 111.0)
    x1, y1, x2, y2 = portrait.faces.boxes[0].astype(int)
    face = portrait.picture[y1:y2, x1:x2]
    _, _, _, place = cv2.minMaxLoc(cv2.matchTemplate(canvas, face, cv2.TM_CCOEFF_NORMED))
    assert box.tolist() == [place[0], place[1], place[0] + x2 - x1, place[1] + y2 - y1]
    inside = portrait.faces.landmarks[0] - (x1, y1) + place  # type: ignore[index]
    np.testing.assert_allclose(points, inside, atol=0.5)


def test_scenes_do_without_the_portraits() -> None:
    spec = SCENES.model_copy(update={"portrait_share": 1.0})
    with_photographs = draw(spec, 1)
    drawn_only = draw(SCENES.model_copy(update={"portrait_share": 0.0}), 1)
    assert len(with_photographs[1]) == len(drawn_only[1])


def test_written_scenes_are_what_the_layout_says(tmp_path: Path) -> None:
    spec = Drawn(count=6, height_px=96, width_px=96, seed=1, largest_share=0.5)
    written = write_drawn(spec, tmp_path, "val")
    read = with_landmarks(read_widerface(tmp_path, "val"), tmp_path / "WIDER_val" / LABELS)
    assert read.fingerprint() == written.fingerprint()
    for index, one in enumerate(read):
        picture, faces = draw(spec, index)
        np.testing.assert_array_equal(one.faces.boxes, faces.boxes)
        stored = cv2.imread(str(one.path), cv2.IMREAD_COLOR_RGB)
        assert np.abs(stored.astype(int) - picture).mean() < 6


def test_writing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    spec = Drawn(count=3, height_px=64, width_px=64)
    digests = []
    for name in ("a", "b"):
        write_drawn(spec, tmp_path / name, "train")
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert len(digests[0]) == 5, "three pictures, their boxes, their landmarks"
    assert digests[0] == digests[1]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "WIDER_val").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_drawn(Drawn(count=1), tmp_path, "val")


@pytest.mark.parametrize(
    "wrong",
    [
        {"fewest": 5, "most": 4},
        {"smallest_px": 60, "largest_share": 0.1},
        {"height_px": 10},
        {"count": 0},
        {"colour": "red"},
    ],
)
def test_a_senseless_spec_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Drawn(**{"count": 1, **wrong})  # type: ignore[arg-type]


def test_a_scene_may_have_no_face() -> None:
    _, faces = draw(Drawn(count=1, fewest=0, most=0), 0)
    assert len(faces) == 0
