from pathlib import Path

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.data.pictures import Annotated, PictureSet
from slimface.errors import DataError
from slimface.evaluate.truth import Truth


def pictures():
    boxes = {"a.jpg": [[0, 0, 5, 5], [1, 1, 9, 9]], "b.jpg": [], "c.jpg": [[2, 2, 4, 8]]}
    labels = {"a.jpg": [[0, 0, 0, 1, 0, 0], [0] * 6], "b.jpg": [], "c.jpg": [[0] * 6]}
    return PictureSet(
        "mine",
        tuple(
            Annotated(
                name,
                Path(name),
                Faces.annotated(boxes[name]),
                np.array(labels[name], dtype=np.uint8).reshape(-1, 6),
            )
            for name in boxes
        ),
    )


def test_annotations_make_one_subset_without_the_invalid_faces():
    truth = Truth.of(pictures())
    assert truth.counts.tolist() == [2, 0, 1]
    assert {name: mask.tolist() for name, mask in truth.counting.items()} == {
        "all": [False, True, True]
    }


def test_restricting_keeps_the_faces_of_the_pictures_that_stay():
    truth = Truth.of(pictures()).restricted(["c.jpg", "b.jpg"])
    assert truth.names == ("b.jpg", "c.jpg")
    assert truth.boxes.tolist() == [[2, 2, 4, 8]]
    assert truth.counting["all"].tolist() == [True]
    assert (len(truth), truth.pictures_in_truth) == (2, 3)


def test_restricting_to_everything_changes_nothing():
    truth = Truth.of(pictures())
    assert truth.restricted(truth.names).sha256 == truth.sha256


def test_a_picture_that_is_not_in_the_truth_is_named():
    with pytest.raises(DataError, match=r"1 of 2 pictures are not in .*'annotations'.*'z.jpg'"):
        Truth.of(pictures()).restricted(["a.jpg", "z.jpg"])


def test_every_part_of_the_truth_moves_its_hash():
    truth = Truth.of(pictures())
    others = [
        truth.restricted(["a.jpg", "c.jpg"]),
        Truth.of(pictures()[:2]),
        Truth("x", truth.names, truth.counts, truth.boxes + 1, truth.counting, 3, True),
        Truth(
            "x", truth.names, truth.counts, truth.boxes, {"all": ~truth.counting["all"]}, 3, True
        ),
        Truth("x", truth.names, truth.counts, truth.boxes, truth.counting, 3, False),
    ]
    assert len({truth.sha256, *(other.sha256 for other in others)}) == 1 + len(others)
