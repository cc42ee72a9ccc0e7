"""RetinaFace's label.txt: all of its traps."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.data.landmarks import parse_labels, read_landmarks, with_landmarks, write_labels
from slimface.data.pictures import Annotated, PictureSet
from slimface.errors import DataError, MissingError

POINTS = "20 21 0 30 21 1 25 26.5 0 21 32 0 29 32 0"
ABSENT = "-1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1"


def labels(folder: Path, *lines: str) -> Path:
    path = folder / "label.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_faces_with_and_without_landmarks_are_told_apart(tmp_path: Path) -> None:
    (one,) = parse_labels(
        labels(tmp_path, "# a/1.jpg", f"10 11 30 40 {POINTS} 0.82", f"1 2 3 4 {ABSENT} 0.1")
    )
    assert (one.name, one.line, one.lines) == ("a/1.jpg", 1, (2, 3))
    assert one.boxes.tolist() == [[10, 11, 30, 40], [1, 2, 3, 4]]
    assert one.landmarks[0, 1].tolist() == [30, 21]
    assert np.isnan(one.landmarks[1]).all()


def test_a_point_left_of_the_picture_is_a_point(tmp_path: Path) -> None:
    (one,) = parse_labels(labels(tmp_path, "# 1.jpg", f"0 0 30 40 -1 12 0 {POINTS[8:]} 1"))
    assert one.landmarks[0, 0].tolist() == [-1, 12]


def test_a_single_absent_point_is_missing_alone(tmp_path: Path) -> None:
    (one,) = parse_labels(labels(tmp_path, "# 1.jpg", f"0 0 30 40 -1 -1 -1 {POINTS[8:]} 1"))
    assert np.isfinite(one.landmarks[0]).all(axis=1).tolist() == [False, True, True, True, True]


def test_pictures_without_faces_and_short_lines_are_read(tmp_path: Path) -> None:
    path = labels(tmp_path, "\ufeff# 1.jpg", "# 2.jpg", "", "1 2 3 4", f"5 6 7 8 {POINTS}\r")
    empty, two = parse_labels(path)
    assert empty.boxes.shape == (0, 4)
    assert empty.landmarks.shape == (0, 5, 2)
    assert np.isfinite(two.landmarks).all(axis=(1, 2)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["1 2 3 4"], ":1: expected '# path' of the first picture"),
        (["# 1.jpg", "1 2 3"], ":2: expected the 20 numbers of a face, found 3"),
        (["# 1.jpg", "1 2 3 x"], ":2: '1 2 3 x' is not all numbers"),
        (["# 1.jpg", "1 2 3 nan"], ":2: .*finite"),
        (["# 1.jpg", f"1 2 3 4 {POINTS[:-1]}7 1"], ":2: a flag of"),
        (["# 1.txt"], ":1: expected the path of a picture"),
        (["# ../1.jpg"], ":1: the path '../1.jpg' leads out"),
        (["# 1.jpg", "# 1.jpg"], ":2: 1.jpg is listed a second time .first in line 1"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(DataError, match=rf"label.txt{complaint}"):
        parse_labels(labels(tmp_path, *lines))


def test_a_folder_in_retinafaces_layout_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = tmp_path / "train" / "images"
    images.mkdir(parents=True)
    cv2.imwrite(str(images / "1.jpg"), np.zeros((60, 60, 3), np.uint8))
    labels(images.parent, "# 1.jpg", f"10 11 30 40 {POINTS} 1", "5 5 0 7", "# lost.jpg")
    with pytest.raises(DataError, match=r"label.txt:4: the picture lost.jpg"):
        read_landmarks(tmp_path, "train")
    with caplog.at_level(logging.INFO, logger="slimface"):
        pictures = read_landmarks(tmp_path, "train", partial=True)
    assert "1 faces of no width or height" in caplog.text
    assert [one.name for one in pictures] == ["1.jpg"]
    assert pictures[0].faces.boxes.tolist() == [[10, 11, 40, 51]]
    with pytest.raises(MissingError, match=r"val.label.txt: no such file"):
        read_landmarks(tmp_path, "val")


def some_pictures() -> PictureSet:
    rng = np.random.default_rng(3)
    corners = np.floor(rng.uniform(0, 50, (3, 2)))
    boxes = np.hstack([corners, corners + 20])
    points = rng.uniform(0, 70, (3, 5, 2)).astype(np.float32)
    points[1] = np.nan
    faces = Faces.annotated(boxes, points)
    return PictureSet("some", (Annotated("a/1.jpg", Path("a/1.jpg"), faces),))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pictures = some_pictures()
    (one,) = parse_labels(write_labels(pictures, tmp_path / "label.txt"))
    np.testing.assert_array_equal(one.landmarks.astype(np.float32), pictures[0].faces.landmarks)


def test_landmarks_go_to_the_faces_of_the_same_boxes(tmp_path: Path) -> None:
    pictures = some_pictures()
    path = write_labels(pictures, tmp_path / "label.txt")
    boxes = pictures[0].faces.boxes[[2, 0]].copy()
    boxes[1] += 1
    bare = Annotated("a/1.jpg", Path("a/1.jpg"), Faces.annotated(boxes))
    (joined,) = with_landmarks(PictureSet("bare", (bare,)), path)
    np.testing.assert_array_equal(joined.faces.landmarks[0], pictures[0].faces.landmarks[2])
    assert np.isnan(joined.faces.landmarks[1]).all()


def test_landmarks_are_part_of_what_pictures_are(tmp_path: Path) -> None:
    pictures = some_pictures()
    bare = PictureSet(
        "some",
        tuple(Annotated(one.name, one.path, Faces.annotated(one.faces.boxes)) for one in pictures),
    )
    assert bare.fingerprint() != pictures.fingerprint()
