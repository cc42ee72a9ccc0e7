"""``slimface shrink``: the table, JSON, and what it refuses."""

import json

import pytest
import torch
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.errors import UsageError
from slimface.model import checkpoint, eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.surgery import zero_filters_
from tests.model.drawn_detector import live_in_


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A checkpoint of EResFD with half of the filters of the first group zeroed."""
    detector = live_in_(build(eresfd.naver(width=8), seed=0), 0)
    group = channel_groups(detector)[1]
    zero_filters_(detector, {group.name: range(group.size // 2)})
    folder = tmp_path_factory.mktemp("masked")
    checkpoint.save(detector, folder / "masked.safetensors")
    torch.save(detector.state_dict(), folder / "masked.pth")
    return folder / "masked.safetensors"


def run(*arguments):
    return CliRunner().invoke(app, ["-q", "shrink", *map(str, arguments)])


def test_the_table_shows_before_and_after_and_the_file_is_smaller(masked, tmp_path):
    out = tmp_path / "small.safetensors"
    result = run(masked, "--out", out)
    assert result.exit_code == 0
    assert "parameters" in result.stdout
    assert "zeroed filters" in result.stdout
    loaded = checkpoint.load_checkpoint(out)
    assert loaded.provenance.recipe == f"slimface shrink {masked}"
    parent = checkpoint.load_checkpoint(masked).detector
    assert loaded.provenance.parent == checkpoint.fingerprint(parent)
    assert sum(p.numel() for p in loaded.detector.parameters()) < sum(
        p.numel() for p in parent.parameters()
    )


def test_json_is_for_programs(masked, tmp_path):
    result = run(masked, "--out", tmp_path / "small.safetensors", "--fold", "--json")
    content = json.loads(result.stdout)
    assert not content["report"]["exact"]
    assert content["after_bytes"] < content["before_bytes"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["masked.safetensors", "--out", "small.pth"], "Let --out end in .safetensors"),
        (["masked.safetensors", "--out", "masked.safetensors"], "the masked model itself"),
        (["masked.safetensors", "--limit", "3"], "--limit is for --pictures"),
        (["masked.safetensors", "--like", "eresfd"], "--like is for .pth files"),
        (["masked.pth"], "Say it with --like NAME"),
    ],
)
def test_senseless_options_are_refused(masked, monkeypatch, arguments, complaint):
    monkeypatch.chdir(masked.parent)
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert complaint in str(result.exception)


def test_a_published_layout_is_read_when_it_is_said_which(masked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wide = live_in_(build(eresfd.naver(), seed=0), 0)
    group = channel_groups(wide)[1]
    zero_filters_(wide, {group.name: range(group.size // 2)})
    torch.save(wide.state_dict(), tmp_path / "theirs.pth")
    result = run("theirs.pth", "--like", "eresfd")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "theirs-shrunk.safetensors").is_file()
