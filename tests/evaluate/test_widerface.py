import logging

import numpy as np
import pytest

from slimface.data.widerface import read_widerface
from slimface.errors import DataError, MissingError
from slimface.evaluate.widerface import read_truth, truth_of

scipy_io = pytest.importorskip("scipy.io")


def cell(*items):
    """A MATLAB cell column."""
    column = np.empty((len(items), 1), dtype=object)
    column[:, 0] = items
    return column


def lists(*events):
    return cell(*(cell(*(np.array(i, dtype=np.uint8).reshape(-1, 1) for i in e)) for e in events))


BOXES = [[[1, 2, 10, 20], [5, 5, 8, 8]], [[3, 3, 6, 6]]], [[[0, 0, 0, 0]]]


@pytest.fixture
def ground_truth(tmp_path):
    """Two events, three pictures, four faces, one of no size."""
    boxes = cell(*(cell(*(np.array(b, dtype=np.int32) for b in event)) for event in BOXES))
    labels = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    zeros = cell(*(cell(*(np.zeros((len(b), 1), np.uint8) for b in event)) for event in BOXES))
    names = {
        **{f"{name}_label_list": zeros for name in labels},
        "event_list": cell("0--Parade", "1--Handshaking"),
        "file_list": cell(cell("first", "second"), cell("third")),
        "face_bbx_list": boxes,
    }
    scipy_io.savemat(tmp_path / "wider_face_val.mat", names)
    for subset, indices in {
        "easy": lists([[1], []], [[]]),
        "medium": lists([[1], [1]], [[]]),
        "hard": lists([[2, 1], [1]], [[]]),
    }.items():
        scipy_io.savemat(tmp_path / f"wider_{subset}_val.mat", {"gt_list": indices})
    return tmp_path


def test_subsets_are_read_from_lists_that_count_from_one(ground_truth):
    truth = read_truth(ground_truth)
    assert truth.names == (
        "0--Parade/first.jpg",
        "0--Parade/second.jpg",
        "1--Handshaking/third.jpg",
    )
    assert truth.counts.tolist() == [2, 1, 1]
    assert truth.boxes.tolist() == [[1, 2, 11, 22], [5, 5, 13, 13], [3, 3, 9, 9], [0, 0, 0, 0]]
    assert {name: mask.tolist() for name, mask in truth.counting.items()} == {
        "easy": [True, False, False, False],
        "medium": [True, False, True, False],
        "hard": [True, True, True, False],
    }


def test_files_that_are_not_the_published_ones_do_not_pass_for_them(ground_truth, caplog):
    with caplog.at_level(logging.WARNING):
        assert read_truth(ground_truth).name == "wider-val, changed"
    assert "differs from WIDER FACE's published" in caplog.text


def test_the_data_root_will_do(ground_truth, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "eval_tools").mkdir()
    (root / "eval_tools" / "ground_truth").symlink_to(ground_truth)
    assert len(read_truth(root)) == 3


def test_a_missing_file_is_named(ground_truth):
    (ground_truth / "wider_hard_val.mat").unlink()
    with pytest.raises(MissingError, match=r"wider_hard_val\.mat: no such file"):
        read_truth(ground_truth)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", b"MATLAB 5.0 MAT-file" + b"\0" * 200])
def test_a_file_that_is_not_matlab_is_named(ground_truth, content):
    (ground_truth / "wider_face_val.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"wider_face_val\.mat"):
        read_truth(ground_truth)


def test_a_truncated_file_is_named(ground_truth):
    file = ground_truth / "wider_easy_val.mat"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"wider_easy_val\.mat"):
        read_truth(ground_truth)


def test_a_missing_variable_is_named(ground_truth):
    scipy_io.savemat(ground_truth / "wider_hard_val.mat", {"other": lists([[1]])})
    with pytest.raises(DataError, match=r"wider_hard_val\.mat: it has no variable 'gt_list'"):
        read_truth(ground_truth)


@pytest.mark.parametrize(
    "indices", [lists([[3], [1]], [[]]), lists([[0], [1]], [[]]), lists([[1]])]
)
def test_lists_that_do_not_fit_the_boxes_are_an_error(ground_truth, indices):
    scipy_io.savemat(ground_truth / "wider_easy_val.mat", {"gt_list": indices})
    with pytest.raises(DataError, match=r"wider_easy_val\.mat: its lists do not fit the boxes"):
        read_truth(ground_truth)


@pytest.mark.data
def test_the_published_truth_has_the_published_numbers(wider_root):
    truth = read_truth(wider_root)
    assert truth.name == "wider-val"
    assert (len(truth), len(truth.boxes)) == (3226, 39708)
    assert {name: int(mask.sum()) for name, mask in truth.counting.items()} == {
        "easy": 7211,
        "medium": 13319,
        "hard": 31958,
    }


@pytest.mark.data
def test_the_annotations_of_the_pictures_are_those_of_the_truth(wider_root):
    pictures = read_widerface(wider_root, "val")
    truth = read_truth(wider_root).restricted(one.name for one in pictures)
    assert len(truth) == len(pictures)
    starts = np.cumsum(truth.counts) - truth.counts
    boxes = {
        name: truth.boxes[start : start + count]
        for name, start, count in zip(truth.names, starts, truth.counts, strict=True)
    }
    for one in pictures:
        sized = (boxes[one.name][:, 2:] > boxes[one.name][:, :2]).all(axis=1)
        np.testing.assert_array_equal(boxes[one.name][sized], one.faces.boxes)


@pytest.mark.data
def test_the_official_truth_is_for_the_official_pictures(wider_root):
    pictures = read_widerface(wider_root, "val")
    assert list(truth_of(pictures, wider_root).counting) == ["easy", "medium", "hard"]
    train = read_widerface(wider_root, "train")[:3]
    assert list(truth_of(train, wider_root).counting) == ["all"]
