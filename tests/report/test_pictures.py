from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.report.pictures import LONGEST_PX, MOST, examples, save_example
from slimface.report.run import Entry


def entry(*lines: dict[str, Any]) -> Entry:
    return Entry(1, "pictures", "pictures", {"pictures": list(lines)}, "", None, "", "", "")


def faces(*boxes: tuple[float, float, float, float]) -> Faces:
    return Faces.annotated(np.asarray(boxes, np.float32).reshape(-1, 4))


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Any]:
    picture = np.zeros((900, 1600, 3), np.uint8)
    before = faces((10, 10, 60, 60), (200, 10, 260, 70))
    after = faces((12, 11, 62, 60), (800, 300, 900, 420))
    return save_example(tmp_path, "a b/../c", picture, before=before, after=after)


def test_a_saved_example_lies_in_the_pictures_folder(line: dict[str, Any], tmp_path: Path) -> None:
    assert (tmp_path / line["path"]).is_file()
    assert (tmp_path / line["path"]).parent == tmp_path / "pictures"


def test_what_was_lost_and_found_is_counted(line: dict[str, Any], tmp_path: Path) -> None:
    shown, notes = examples(tmp_path, [entry(line)])
    assert notes == []
    assert shown[0].words == "2 faces before, 2 after; 1 lost; 1 new"
    assert shown[0].before.count("alone") == 1
    assert shown[0].after.count("alone") == 1


def test_boxes_are_in_pixels_of_the_picture_that_was_given(
    line: dict[str, Any], tmp_path: Path
) -> None:
    assert max(line["height"], line["width"]) > LONGEST_PX
    shown, _ = examples(tmp_path, [entry(line)])
    assert 'viewBox="0 0 1600 900"' in shown[0].after
    assert 'x="800.0" y="300.0" width="100.0" height="120.0"' in shown[0].after


def test_the_picture_is_embedded_once(line: dict[str, Any], tmp_path: Path) -> None:
    shown, _ = examples(tmp_path, [entry(line)])
    assert shown[0].before.count("data:image/jpeg") == 1
    assert "data:" not in shown[0].after
    assert 'href="#picture-1"' in shown[0].after


def test_a_model_without_a_parent_has_one_picture(tmp_path: Path) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    line = save_example(tmp_path, "x", picture, before=None, after=faces((1, 1, 9, 9)))
    shown, _ = examples(tmp_path, [entry(line)])
    assert shown[0].before == ""
    assert shown[0].words == "1 face found"
    assert "data:image/jpeg" in shown[0].after


def test_annotated_faces_that_are_not_found_are_shown(tmp_path: Path) -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    truth = faces((10, 10, 30, 30), (50, 50, 90, 90))
    near, far = faces((11, 10, 31, 30)), faces((60, 5, 70, 15))
    line = save_example(tmp_path, "x", picture, before=truth, after=near, truth=truth)
    shown, _ = examples(tmp_path, [entry(line)])
    assert shown[0].words == "2 faces before, 1 after; 1 lost; 2 and 1 of the 2 annotated"
    assert shown[0].before.count("missed") == 0
    assert shown[0].after.count('class="face missed"') == 1
    line = save_example(tmp_path, "y", picture, before=None, after=far, truth=truth)
    shown, _ = examples(tmp_path, [entry(line)])
    assert shown[0].words == "1 face found; 0 of the 2 annotated"


def test_finding_nothing_before_is_not_the_same_as_no_record(tmp_path: Path) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    line = save_example(tmp_path, "x", picture, before=Faces.none(), after=faces((1, 1, 9, 9)))
    shown, _ = examples(tmp_path, [entry(line)])
    assert shown[0].words == "0 faces before, 1 after; 1 new"


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/passwd", "", "pictures", "pictures/none.jpg"]
)
def test_nothing_outside_the_run_folder_is_read(
    line: dict[str, Any], tmp_path: Path, path: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / line["path"]).replace(tmp_path / "secret.jpg")
    shown, notes = examples(folder, [entry({**line, "path": path})])
    assert shown == []
    assert "is not in the run folder or is no picture" in notes[0]


def test_boxes_that_are_no_boxes_are_not_drawn(line: dict[str, Any], tmp_path: Path) -> None:
    odd = [{"box": [1, 2, 3]}, {"box": "1234"}, {"box": [1, 2, None, 4]}, 7, {}]
    shown, _ = examples(tmp_path, [entry({**line, "before": odd, "after": odd})])
    assert "<rect" not in shown[0].before + shown[0].after


def test_many_large_pictures_stay_within_the_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (LONGEST_PX, LONGEST_PX, 3), np.uint8)
    lines = [
        save_example(tmp_path, str(i), noise, before=None, after=Faces.none())
        for i in range(MOST + 2)
    ]
    shown, notes = examples(tmp_path, [entry(*lines)])
    assert 0 < len(shown) <= MOST
    assert sum(len(example.after) for example in shown) < 2_500_000
    assert f"{len(shown)} of {len(lines)} pictures are shown" in notes[-1]
