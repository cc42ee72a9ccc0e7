import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from slimface.cli.doctor import doctor
from slimface.errors import DataError

app = typer.Typer()
app.command()(doctor)


def run(*words: object) -> str:
    """What the command prints; its errors fly, as ``cli.app`` expects."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "val" / "images"
    images.mkdir(parents=True)
    cv2.imwrite(str(images / "1.png"), np.random.default_rng(0).integers(0, 255, (20, 20, 3)))
    (tmp_path / "val" / "label.txt").write_text("# 1.png\n1 1 5 5\n1 2 x 4\n")
    return tmp_path


def test_a_broken_line_fails_and_is_named_as_editors_like_it(folder: Path) -> None:
    result = CliRunner().invoke(app, [str(folder)])
    assert isinstance(result.exception, DataError)
    assert f"{folder / 'val' / 'label.txt'}:3: format: '1 2 x 4' is not all numbers" in (
        result.stdout
    )


def test_json_says_what_where_and_whether_it_matters(folder: Path) -> None:
    result = CliRunner().invoke(app, [str(folder), "--json"])
    content = json.loads(result.stdout)
    assert (content["pictures"], content["faces"], content["broken"]) == (1, 1, 1)
    (finding,) = content["findings"]
    assert (finding["rule"], finding["line"], finding["broken"]) == ("format", 3, True)


def test_repaired_copies_and_the_list_are_written_beside(folder: Path) -> None:
    content = json.loads(run(folder, "--repair", "--val-list", "--json"))
    repaired, listed = (Path(path) for path in content["written"])
    assert repaired.read_text() == "# 1.png\n1 1 5 5\n"
    assert listed == folder / "val" / "wider_val.txt"
    assert listed.read_text() == "1.png\n"


def test_a_sound_folder_passes(folder: Path) -> None:
    (folder / "val" / "label.txt").write_text("# 1.png\n1 1 5 5\n")
    assert "1 pictures, 1 faces" in run(folder)
