import json

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.data.formats import Detected, write_coco, write_json


def pictures() -> list[Detected]:
    found = Faces(
        np.array([[1, 2, 11, 22], [5, 5, 6.5, 7]], dtype=np.float32),
        np.array([0.9, 0.5], dtype=np.float32),
    )
    return [
        Detected("a/one.jpg", found, 100, 200),
        Detected("b/two.jpg", Faces.none(), 10, 20),
        Detected("b/three.jpg", found.select([1]), 10, 20),
    ]


def test_coco_boxes_are_corner_and_size(tmp_path):
    write_coco(tmp_path / "new" / "x.json", pictures())
    rows = json.loads((tmp_path / "new" / "x.json").read_text())
    assert rows[0] == {
        "image_id": 1,
        "file_name": "a/one.jpg",
        "category_id": 1,
        "bbox": [1, 2, 10, 20],
        "score": 0.9,
    }
    assert [row["image_id"] for row in rows] == [1, 1, 3]


def test_coco_ids_can_be_those_of_the_annotations(tmp_path):
    ids = {"a/one.jpg": 70, "b/two.jpg": 71, "b/three.jpg": 72}
    write_coco(tmp_path / "x.json", pictures(), image_ids=ids, category_id=9)
    rows = json.loads((tmp_path / "x.json").read_text())
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(70, 9), (72, 9)}


def test_a_picture_without_an_id_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(KeyError, match=r"b/two\.jpg"):
        write_coco(path, pictures(), image_ids={"a/one.jpg": 70})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_every_picture_and_who_looked(tmp_path):
    write_json(tmp_path / "x.json", pictures(), model="eresfd")
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["model"] == "eresfd"
    assert [len(row["faces"]) for row in content["pictures"]] == [2, 0, 1]
    assert content["pictures"][0]["faces"][0] == {"box": [1, 2, 11, 22], "score": 0.9}


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    folder = tmp_path / "is a file"
    folder.write_text("")
    with pytest.raises(OSError, match="is a file"):
        write_json(folder / "x.json", pictures())
