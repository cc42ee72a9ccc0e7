"""Sets of annotated pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.data.pictures import Annotated, PictureSet

ONE = Annotated("a/1.jpg", Path("/x/1.jpg"), Faces.annotated([[1, 2, 3, 4], [5, 6, 7, 8]]))
TWO = Annotated("a/2.jpg", Path("/x/2.jpg"), Faces.none())
SET = PictureSet("two", (ONE, TWO))


def test_a_set_is_a_sequence_of_its_pictures() -> None:
    assert len(SET) == 2
    assert SET[1] is TWO
    assert list(SET) == [ONE, TWO]
    assert SET[1:].pictures == (TWO,)
    assert SET.subset([1, 0, 1]).pictures == (TWO, ONE, TWO)
    assert SET.with_faces().pictures == (ONE,)
    assert SET.face_count == 2


def test_the_fingerprint_knows_names_boxes_and_order() -> None:
    moved = replace(ONE, faces=ONE.faces.moved(shift=(1, 0)))
    renamed = replace(ONE, name="a/3.jpg")
    sets = [(ONE, TWO), (TWO, ONE), (ONE,), (moved, TWO), (renamed, TWO)]
    assert len({PictureSet("two", pictures).fingerprint() for pictures in sets}) == len(sets)


def test_the_fingerprint_does_not_know_where_the_files_are() -> None:
    elsewhere = replace(ONE, path=Path("/y/1.jpg"))
    assert PictureSet("other", (elsewhere, TWO)).fingerprint() == SET.fingerprint()


def test_unknown_attributes_are_zero_and_unknown_names_an_error() -> None:
    assert ONE.attribute("pose").tolist() == [0, 0]
    labelled = replace(ONE, labels=np.uint8([[1, 0, 0, 0, 2, 0], [0, 0, 0, 1, 0, 1]]))
    assert labelled.attribute("invalid").tolist() == [0, 1]
    with pytest.raises(ValueError, match="colour"):
        ONE.attribute("colour")
