"""``slimface demo data``."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from slimface.cli.demo_data import demo_data
from slimface.data.source import WiderFace
from slimface.errors import UsageError

app = typer.Typer()
app.command()(demo_data)


def run(*words: object) -> str:
    """What the command prints; its errors fly, as ``cli.app`` expects."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_both_splits_are_drawn_and_described(tmp_path: Path) -> None:
    root = tmp_path / "drawn"
    printed = json.loads(run(root, "--count", 3, "--val", 2, "--size", 96, "--json"))
    for row, (split, count) in zip(printed["splits"], (("train", 3), ("val", 2)), strict=True):
        pictures = WiderFace(root=str(root)).pictures(split)
        assert (row["split"], row["pictures"]) == (split, len(pictures)) == (split, count)
        assert row["faces"] == pictures.face_count
        assert row["fingerprint"] == pictures.fingerprint()


def test_no_scene_is_in_both_splits(tmp_path: Path) -> None:
    run(tmp_path / "drawn", "--count", 3, "--val", 3, "--size", 64)
    files = list((tmp_path / "drawn").rglob("*.jpg"))
    assert len({path.read_bytes() for path in files}) == len(files) == 6


def test_annotations_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "wider_face_split").mkdir()
    with pytest.raises(UsageError, match="already holds annotations"):
        run(tmp_path, "--count", 1)


def test_a_seed_draws_the_same_set(tmp_path: Path) -> None:
    options = ("--count", 2, "--val", 1, "--size", 64, "--json")
    first, again, other = (
        json.loads(run(tmp_path / str(i), "--seed", seed, *options))["splits"]
        for i, seed in enumerate((4, 4, 5))
    )
    assert first == again != other
