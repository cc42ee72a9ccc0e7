"""The annotation files of WIDER FACE: every rule of the format, and the real files."""

import logging
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from slimface.core.faces import Faces
from slimface.data.annotations import is_inside, parse_mat, parse_txt
from slimface.data.pictures import Annotated, PictureSet
from slimface.data.widerface import read_widerface, write_widerface
from slimface.errors import DataError, MissingError

TWO_PICTURES = """\
0--Parade/a.jpg
2
10 20 30 40 2 1 0 0 1 0
50 60 7 8 0 0 1 1 2 1
1--Handshaking/b.jpg
1
1 2 3 4 0 0 0 0 0 0
"""


def folder(root: Path, text: str, *names: str) -> Path:
    """A folder in the official layout with this validation annotation and these pictures."""
    annotations = root / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    annotations.parent.mkdir(parents=True)
    annotations.write_text(text)
    for name in names:
        place = root / "WIDER_val" / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), np.zeros((8, 8, 3), np.uint8))
    return root


def parsed(tmp_path: Path, text: str) -> list[tuple[str, list[list[float]]]]:
    path = tmp_path / "gt.txt"
    path.write_text(text)
    return [(entry.name, entry.numbers.tolist()) for entry in parse_txt(path)]


def test_pictures_boxes_and_attributes_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path, TWO_PICTURES, "0--Parade/a.jpg", "1--Handshaking/b.jpg")
    pictures = read_widerface(root, "val")
    first, second = pictures
    assert pictures.name == "widerface-val"
    assert [first.name, second.name] == ["0--Parade/a.jpg", "1--Handshaking/b.jpg"]
    assert first.faces.boxes.tolist() == [[10, 20, 40, 60], [50, 60, 57, 68]]
    assert first.attribute("blur").tolist() == [2, 0]
    assert first.attribute("occlusion").tolist() == [1, 2]
    assert first.path.is_file()


@pytest.mark.parametrize("quirk", ["", "0 0 0 0 0 0 0 0 0 0\n", "0 0 0 0 0 0 0 0 0 0 \r\n"])
def test_a_picture_without_faces_may_have_a_line_of_zeros(tmp_path: Path, quirk: str) -> None:
    assert parsed(tmp_path, f"a.jpg\n0\n{quirk}b.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n") == [
        ("a.jpg", []),
        ("b.jpg", [[1, 2, 3, 4, 0, 0, 0, 0, 0, 0]]),
    ]


def test_windows_line_ends_and_a_byte_order_mark_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TWO_PICTURES.replace("\n", "\r\n").encode())
    assert [entry.name for entry in parse_txt(path)] == ["0--Parade/a.jpg", "1--Handshaking/b.jpg"]


def test_faces_of_no_size_are_left_out_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "a.jpg\n3\n1 2 0 4 0 0 0 0 0 0\n5 6 7 8 0 0 0 0 0 0\n1 2 3 -4 0 0 0 0 0 0\n"
    root = folder(tmp_path, text, "a.jpg")
    with caplog.at_level(logging.INFO):
        pictures = read_widerface(root, "val")
    assert pictures[0].faces.boxes.tolist() == [[5, 6, 12, 14]]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "2 faces of no width or height were left out"
    ]


FACE = "1 2 3 4 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        (f"a.jpg\n{FACE}", 2, "number of faces"),
        (f"a.jpg\nmany\n{FACE}", 2, "number of faces"),
        (f"a.jpg\n-1\n{FACE}", 2, "number of faces"),
        (f"a.jpg\n²\n{FACE}", 2, "number of faces"),
        ("a.jpg\n", 2, "found nothing"),
        (f"a.jpg\n2\n{FACE}", 2, "ends after 1"),
        (f"a.jpg\n1\n{FACE}{FACE}", 4, "path of a picture"),
        (f"a.jpg\n2\n{FACE}b.jpg\n1\n{FACE}", 4, "number of faces above it may be wrong"),
        ("a.jpg\n1\n1 2 3\n", 3, "10 numbers"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0 0 0\n", 3, "10 numbers"),
        ("a.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", 3, "'x' is not a number"),
        ("a.jpg\n1\n1 nan 3 4 0 0 0 0 0 0\n", 3, "finite"),
        ("a.jpg\n1\n1 1e999 3 4 0 0 0 0 0 0\n", 3, "finite"),
        ("a.jpg\n1\n1 2 3 4 9 0 0 0 0 0\n", 3, "attributes 0, 1 or 2"),
        ("a.jpg\n1\n1 2 3 4 0.5 0 0 0 0 0\n", 3, "attributes 0, 1 or 2"),
        (f"\na.jpg\n1\n{FACE}", 1, "found nothing"),
        (f"a.gif\n1\n{FACE}", 1, "path of a picture"),
        (f"../a.jpg\n1\n{FACE}", 1, "leads out"),
        (f"x/../../a.jpg\n1\n{FACE}", 1, "leads out"),
        (f"/etc/a.jpg\n1\n{FACE}", 1, "leads out"),
        (f"C:/a.jpg\n1\n{FACE}", 1, "leads out"),
        (f"..\\a.jpg\n1\n{FACE}", 1, "leads out"),
        (f"a.jpg\n1\n{FACE}a.jpg\n1\n{FACE}", 4, "second time (first in line 1)"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, line: int, rule: str) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        parse_txt(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert rule in message


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_bytes(b"a\xff.jpg\n0\n")
    with pytest.raises(DataError, match="byte 1 is not UTF-8"):
        parse_txt(path)


def test_a_missing_picture_is_named_with_its_line(tmp_path: Path) -> None:
    root = folder(tmp_path, TWO_PICTURES, "0--Parade/a.jpg")
    with pytest.raises(DataError, match=r"gt\.txt:5: the picture 1--Handshaking/b\.jpg is not in"):
        read_widerface(root, "val")


def test_a_part_of_the_pictures_is_read_on_request(tmp_path: Path) -> None:
    root = folder(tmp_path, TWO_PICTURES, "1--Handshaking/b.jpg")
    pictures = read_widerface(root, "val", partial=True)
    assert [one.name for one in pictures] == ["1--Handshaking/b.jpg"]


def test_a_folder_without_annotations_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"neither wider_face_train_bbx_gt\.txt nor"):
        read_widerface(tmp_path, "train")


@pytest.mark.parametrize("name", ["a.jpg", "x/y/..z.jpg", "12:30.jpg", "0--Parade/a b.jpg"])
def test_harmless_names_stay_inside(name: str) -> None:
    assert is_inside(name)


def test_written_pictures_are_read_back_the_same(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", TWO_PICTURES, "0--Parade/a.jpg", "1--Handshaking/b.jpg")
    before = read_widerface(root, "val")
    empty = Annotated("2--None/c.jpg", before[0].path, Faces.none())
    fractional = Annotated(
        "2--None/d.jpg", before[0].path, Faces.annotated([[0.5, 1.25, 10.75, 20.0]])
    )
    everything = PictureSet("all", (*before.pictures, empty, fractional))
    write_widerface(everything, tmp_path / "b", "train")
    after = read_widerface(tmp_path / "b", "train")
    assert after.fingerprint() == everything.fingerprint()
    assert after[0].labels is not None
    assert after[0].labels.tolist() == [[2, 1, 0, 0, 1, 0], [0, 0, 1, 1, 2, 1]]
    assert after[0].path.read_bytes() == before[0].path.read_bytes()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_widerface(PictureSet("none", ()), tmp_path / "file", "val")


def cells(*values: object) -> np.ndarray:
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = values
    return array


def write_mat(path: Path, *, boxes: np.ndarray, event: str = "0--Parade") -> Path:
    labels = {
        f"{name}_label_list": cells(cells(np.full((len(boxes), 1), i % 3, np.uint8)))
        for i, name in enumerate(
            ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
        )
    }
    savemat(
        path,
        {
            "event_list": cells(event),
            "file_list": cells(cells("a")),
            "face_bbx_list": cells(cells(boxes)),
            **labels,
        },
    )
    return path


def test_matlab_annotations_say_the_same_as_text(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "wider_face_val.mat", boxes=np.int32([[10, 20, 30, 40]]))
    (entry,) = parse_mat(path)
    assert entry.name == "0--Parade/a.jpg"
    assert entry.numbers.tolist() == [[10, 20, 30, 40, 0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize("content", [b"", b"no MATLAB file at all" * 20, b"\x00" * 300])
def test_what_is_no_matlab_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wider_face_val.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"wider_face_val\.mat"):
        parse_mat(path)


def test_a_matlab_file_of_something_else_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"event_list": 3})
    with pytest.raises(DataError, match="not the annotations of WIDER FACE"):
        parse_mat(tmp_path / "x.mat")


def test_a_matlab_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "x.mat", boxes=np.int32([[1, 2, 3, 4]]), event="..")
    with pytest.raises(DataError, match="leads out"):
        parse_mat(path)


@pytest.mark.data
def test_the_real_pictures_are_all_read(wider_root: Path) -> None:
    train, val = read_widerface(wider_root, "train"), read_widerface(wider_root, "val")
    # The text lists 16,952 training faces; two of them have no size.
    assert (len(train), train.face_count) == (1500, 16950)
    assert (len(val), val.face_count) == (120, 2246)


@pytest.mark.data
def test_text_and_matlab_agree_on_the_real_pictures(wider_root: Path) -> None:
    mat = wider_root / "eval_tools" / "ground_truth" / "wider_face_val.mat"
    by_name = {one.name: one for one in read_widerface(wider_root, "val")}
    others = read_widerface(wider_root, "val", annotations=mat, partial=True)
    assert len(others) == len(by_name)
    for other in others:
        np.testing.assert_array_equal(other.faces.boxes, by_name[other.name].faces.boxes)
        np.testing.assert_array_equal(other.labels, by_name[other.name].labels)


@pytest.mark.data
def test_the_whole_validation_text_is_parsed_in_a_moment(wider_root: Path, tmp_path: Path) -> None:
    entries = parse_mat(wider_root / "eval_tools" / "ground_truth" / "wider_face_val.mat")
    path = tmp_path / "val.txt"
    lines: list[str] = []
    for entry in entries:
        rows = [" ".join(str(int(n)) for n in row) for row in entry.numbers]
        lines += [entry.name, str(len(rows)), *rows]
    path.write_text("\n".join(lines))
    start = time.process_time()
    parsed_again = parse_txt(path)
    # 0.15 s here; the bound only catches a parser that became slow.
    assert time.process_time() - start < 1.5
    assert sum(len(entry.numbers) for entry in parsed_again) == 39708
