import logging

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.errors import DataError, MissingError
from slimface.evaluate.predictions import read_predictions, write_predictions

NAME = "0--Parade/0_Parade_1.jpg"
GOOD = "0_Parade_1.jpg\n2\n10 20 30 40 0.9\n1.5 2.5 3 4 0.25\n"


def folder_with(tmp_path, text, name="0--Parade/0_Parade_1.txt"):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return tmp_path


def test_boxes_become_corners(tmp_path):
    (faces,), _ = read_predictions(folder_with(tmp_path, GOOD), [NAME])
    np.testing.assert_allclose(faces.boxes, [[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]])
    np.testing.assert_allclose(faces.scores, [0.9, 0.25])


@pytest.mark.parametrize(
    "title",
    ["0_Parade_1", "0--Parade/0_Parade_1.jpg", "/data/0--Parade/0_Parade_1.jpg", "a\\0_Parade_1"],
)
def test_the_name_may_be_written_in_the_ways_detectors_write_it(tmp_path, title):
    folder = folder_with(tmp_path, GOOD.replace("0_Parade_1.jpg", title))
    (faces,), _ = read_predictions(folder, [NAME])
    assert len(faces) == 2


def test_windows_line_ends_and_a_missing_last_line_feed_are_fine(tmp_path):
    folder = folder_with(tmp_path, GOOD.rstrip().replace("\n", "\r\n"))
    (faces,), _ = read_predictions(folder, [NAME])
    assert len(faces) == 2


def test_a_picture_with_nothing_found_is_fine(tmp_path):
    (faces,), _ = read_predictions(folder_with(tmp_path, "0_Parade_1\n0\n"), [NAME])
    assert len(faces) == 0


def test_unsorted_boxes_are_sorted_and_that_is_said(tmp_path, caplog):
    folder = folder_with(tmp_path, "0_Parade_1\n2\n1 1 5 5 0.25\n2 2 5 5 0.75\n")
    with caplog.at_level(logging.WARNING):
        (faces,), _ = read_predictions(folder, [NAME])
    np.testing.assert_allclose(faces.scores, [0.75, 0.25])
    np.testing.assert_allclose(faces.boxes[0], [2, 2, 7, 7])
    assert "1 files of predictions are not sorted" in caplog.text


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", ":1:", "expected the name of the picture, 0_Parade_1, got ''"),
        ("0_Parade_2.jpg\n0\n", ":1:", "got '0_Parade_2.jpg'"),
        ("0_Parade_1\n", ":2:", "expected the number of boxes, got ''"),
        ("0_Parade_1\n-1\n", ":2:", "got '-1'"),
        ("0_Parade_1\n2\n1 2 3 4 0.5\n", ":2:", "it promises 2 boxes, but 1 lines follow"),
        ("0_Parade_1\n1\n1 2 3 4 0.5\n1 2 3 4 0.4\n", ":2:", "promises 1 boxes, but 2"),
        ("0_Parade_1\n2\n1 2 3 4 0.5\n1 2 3 4\n", ":4:", "five numbers"),
        ("0_Parade_1\n1\n1 2 3 4 5 6\n", ":3:", "five numbers"),
        ("0_Parade_1\n1\n1 2 x 4 0.5\n", ":3:", "got '1 2 x 4 0.5'"),
        ("0_Parade_1\n1\n1 2 3 4 nan\n", ":3:", "numbers must be finite"),
        ("0_Parade_1\n1\n1 2 -3 4 0.5\n", ":3:", "sides not negative"),
    ],
)
def test_a_broken_line_is_named(tmp_path, text, place, what):
    with pytest.raises(DataError) as error:
        read_predictions(folder_with(tmp_path, text), [NAME])
    assert f"0_Parade_1.txt{place} " in str(error.value)
    assert what in str(error.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    file = folder_with(tmp_path, "") / "0--Parade" / "0_Parade_1.txt"
    file.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(DataError, match=r"0_Parade_1\.txt:1: expected the name"):
        read_predictions(tmp_path, [NAME])


def test_a_picture_without_predictions_is_an_error(tmp_path):
    folder = folder_with(tmp_path, GOOD)
    with pytest.raises(MissingError, match="1 of 2 pictures") as error:
        read_predictions(folder, [NAME, "0--Parade/other.jpg"])
    assert "other.txt" in str(error.value)


def test_a_picture_without_predictions_has_found_nothing_if_so_told(tmp_path, caplog):
    folder = folder_with(tmp_path, GOOD)
    detections, _ = read_predictions(folder, [NAME, "0--Parade/other.jpg"], missing_ok=True)
    assert [len(faces) for faces in detections] == [2, 0]
    assert "1 of 2 pictures have no predictions" in caplog.text


def test_a_missing_folder_is_an_error_even_if_pictures_may_be_missing(tmp_path):
    with pytest.raises(MissingError, match="no such folder"):
        read_predictions(tmp_path / "nowhere", [NAME], missing_ok=True)


def test_other_predictions_have_another_hash(tmp_path):
    _, first = read_predictions(folder_with(tmp_path, GOOD), [NAME])
    _, second = read_predictions(folder_with(tmp_path, GOOD.replace("0.25", "0.26")), [NAME])
    assert first != second


def test_what_is_written_is_read_back_exactly(tmp_path):
    draws = np.random.default_rng(0)
    corner = draws.uniform(0, 1000, (200, 2))
    boxes = np.float32(np.hstack([corner, corner + draws.uniform(1, 300, corner.shape)]))
    faces = Faces(boxes, np.sort(np.float32(draws.random(200)))[::-1])
    names = [NAME, "1--Handshaking/x.png"]
    write_predictions(tmp_path, names, [faces, Faces.none()])
    (first, second), _ = read_predictions(tmp_path, names)
    np.testing.assert_array_equal(first.scores, faces.scores)
    np.testing.assert_allclose(first.boxes, boxes, rtol=2e-7)
    assert len(second) == 0
    assert not list(tmp_path.rglob("*.partial"))
