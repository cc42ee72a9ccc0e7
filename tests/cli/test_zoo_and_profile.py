"""``slimface zoo`` and ``slimface profile``."""

import json

import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.errors import UsageError
from slimface.model import checkpoint, eresfd
from slimface.model.build import build
from slimface.model.surgery import remove_channels

runner = CliRunner()


@pytest.fixture
def pruned(tmp_path):
    path = tmp_path / "pruned.safetensors"
    narrow = remove_channels(build(eresfd.naver(), seed=0), {"base.conv4.res_layer.0": range(8)})
    checkpoint.save(narrow, path)
    return str(path)


def test_the_zoo_lists_what_a_buyer_asks_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path))
    monkeypatch.delenv("SLIMFACE_WEIGHTS", raising=False)
    result = runner.invoke(app, ["zoo"], catch_exceptions=False)
    assert result.exit_code == 0
    for part in ("eresfd-lfdp-fpgm50", "92,208", "295.1", "Apache-2.0", "clovaai/EResFD", "fetch"):
        assert part in result.stdout


def test_the_zoo_speaks_json():
    found = json.loads(runner.invoke(app, ["zoo", "--json"], catch_exceptions=False).stdout)
    first = found["models"][0]
    assert (first["name"], first["parameters"], first["macs"]) == ("eresfd", 92_208, 295_065_600)


def test_a_profile_ends_with_the_total():
    result = runner.invoke(app, ["profile", "eresfd"], catch_exceptions=False)
    total = next(line for line in result.stdout.splitlines() if "total" in line)
    assert "92,208" in total
    assert "295.066" in total


def test_before_and_after_stand_side_by_side(pruned):
    result = runner.invoke(app, ["profile", pruned, "--against", "eresfd"], catch_exceptions=False)
    total = next(line for line in result.stdout.splitlines() if "total" in line)
    assert "92,208" in total
    assert "89,888" in total
    assert "parameters -2.5%" in result.stdout


def test_profiles_speak_json(pruned):
    arguments = ["profile", pruned, "--against", "eresfd", "--size", "320x240", "--json"]
    found = json.loads(runner.invoke(app, arguments, catch_exceptions=False).stdout)
    assert (found["profile"]["width"], found["profile"]["height"]) == (320, 240)
    assert found["profile"]["macs"] < found["against"]["macs"]


def test_an_unknown_model_is_an_error_of_usage():
    with pytest.raises(UsageError, match="Did you mean eresfd"):
        runner.invoke(app, ["profile", "eresdf"], catch_exceptions=False)


def test_a_classifier_is_profiled_at_its_own_size():
    result = runner.invoke(app, ["profile", "classifier:resnet18@64", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.output)["profile"]
    assert (found["height"], found["width"], found["parameters"]) == (64, 64, 11_689_512)
