import cv2
import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.deploy.draw import BOX_COLOUR, POINT_COLOUR, beside, draw, write_picture
from slimface.deploy.media import read_picture, sources
from slimface.deploy.video import VideoFile
from slimface.errors import DataError


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def faces(*boxes: tuple[float, float, float, float], landmarks=None) -> Faces:
    return Faces(
        np.array(boxes, dtype=np.float32), np.full(len(boxes), 0.87, np.float32), landmarks
    )


def test_the_edges_of_a_box_are_drawn_and_the_picture_stays():
    picture = grey()
    drawn = draw(picture, faces((40, 30, 100, 90)))
    assert (picture == 128).all()
    assert drawn[60, 40].tolist() == list(BOX_COLOUR)
    assert drawn[90, 70].tolist() == list(BOX_COLOUR)
    assert (drawn[50:80, 60:80] == 128).all()


def test_scores_stand_above_their_box_unless_the_face_is_smaller():
    with_score = draw(grey(), faces((40, 40, 100, 90)))
    without = draw(grey(), faces((40, 40, 100, 90)), scores=False)
    assert (with_score[:37] != without[:37]).any()
    tiny = faces((40, 40, 46, 48))
    np.testing.assert_array_equal(draw(grey(), tiny), draw(grey(), tiny, scores=False))


def test_boxes_reaching_out_are_drawn_at_the_border():
    drawn = draw(grey(), faces((-500, -20, 80, 1e6)))
    assert drawn[60, 80].tolist() == list(BOX_COLOUR)
    assert drawn[119, 40].tolist() == list(BOX_COLOUR)


def test_landmarks_are_drawn_where_they_are_known():
    points = np.full((2, 5, 2), np.nan, dtype=np.float32)
    points[0] = [[50, 50], [70, 50], [60, 60], [52, 70], [68, 70]]
    drawn = draw(grey(), faces((40, 40, 80, 80), (100, 40, 140, 80), landmarks=points))
    assert (drawn[60, 60] != 128).any()
    assert (drawn[60, 120] == 128).all()


def test_points_are_round_and_cut_off_at_the_border():
    points = np.array([[[60.3, 60.3], [-1, 0], [159.6, 119.6], [1e6, 5], [-1e6, 5]]], np.float32)
    drawn = draw(grey(), faces((40, 40, 100, 90), landmarks=points), scores=False)
    assert drawn[60, 60].tolist() == list(POINT_COLOUR)
    patch = drawn[54:67, 54:67].astype(int)
    assert np.abs(patch - patch.transpose(1, 0, 2)).max() <= 1
    assert (drawn[0, 0] != 128).any()
    assert (drawn[119, 159] != 128).any()
    assert (drawn[5, 140:] == 128).all()


def test_lines_grow_with_the_picture():
    def line_width(side: int) -> int:
        drawn = draw(grey(side, side), faces((side / 4, side / 4, side * 0.7, side * 0.7)))
        row = drawn[side // 2, : side // 2]
        return int((row != 128).any(axis=1).sum())

    assert line_width(4000) > 2 * line_width(300)


def test_drawing_on_one_pixel_and_on_nothing_works():
    assert draw(grey(1, 1), faces((0, 0, 1, 1))).shape == (1, 1, 3)
    np.testing.assert_array_equal(draw(grey(), Faces.none()), grey())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".JPEG"])
def test_pictures_are_written_as_they_are_named(tmp_path, suffix):
    path = tmp_path / "new" / f"x{suffix}"
    picture = np.full((20, 30, 3), (200, 100, 50), dtype=np.uint8)
    write_picture(path, picture)
    assert np.abs(read_picture(path).astype(int) - picture).max() <= 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot be written as '\.txt'"):
        write_picture(tmp_path / "x.txt", grey())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write_half() -> None:
        with beside(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_appears_when_closed(tmp_path):
    video = VideoFile(tmp_path / "out" / "clip.avi", height=48, width=64, frames_per_second=10)
    for _ in range(5):
        video.write(np.full((48, 64, 3), (250, 0, 0), dtype=np.uint8))
    assert not video.path.exists()
    video.close()
    video.close()
    frames = list(sources([video.path]))
    assert len(frames) == 5
    assert frames[0].picture[20, 20, 0] > 200
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == 10
