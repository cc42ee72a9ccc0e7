"""``slimface quantize``: what the command makes of its options."""

import pytest
from typer.testing import CliRunner

from slimface.cli.app import app
from slimface.cli.quantize import _recipe
from slimface.compress.quantize.settings import Quantization
from slimface.errors import RecipeError, UsageError


def recipe(model: str, **settings):
    asked = Quantization(**settings).model_dump()
    return _recipe(model, "drawn", asked, 4, 2, None, None, 0)


def test_a_cascade_learns_net_by_net_with_the_bits_that_are_written():
    steps = recipe("mtcnn", bits=4).steps
    learning = [step for step in steps if step.kind == "qat"]
    assert [step.train.net for step in learning] == ["pnet", "rnet", "onet"]
    written = next(step for step in steps if step.kind == "quantize")
    assert {step.bits for step in learning} == {written.bits} == {4}
    for step in learning:
        # Labels on crops of a few pictures harm the net more than rounding does.
        assert step.train.criterion.teacher == "step:0" and step.train.criterion.weight == 1


def test_a_detector_learns_as_a_whole_with_its_norms_at_rest():
    (step,) = [step for step in recipe("eresfd").steps if step.kind == "qat"]
    assert step.train.kind == "train" and step.bits == 8
    assert step.train.schedule.frozen_norms
    assert step.train.criterion.kind == "distill" and step.train.criterion.teacher == "step:0"
    assert step.train.criterion.of.kind == "multibox"


def test_a_training_rounds_by_the_settings_of_the_file():
    steps = recipe("eresfd", keep=("stem",), ranges="mse", sqnr_db=20).steps
    trained, written = (next(s for s in steps if s.kind == kind) for kind in ("qat", "quantize"))
    for name in ("keep", "ranges", "sqnr_db", "bits", "reduce_range"):
        assert getattr(trained, name) == getattr(written, name)


def test_bits_that_nobody_writes_are_refused():
    said = CliRunner().invoke(app, ["quantize", "eresfd", "--bits", "3"])
    assert isinstance(said.exception, (RecipeError, SystemExit)) and said.exit_code != 0


def test_epochs_are_for_training():
    with pytest.raises(UsageError, match="--epochs"):
        CliRunner().invoke(
            app,
            ["quantize", "eresfd", "--epochs", "2"],
            catch_exceptions=False,
            standalone_mode=False,
        )
