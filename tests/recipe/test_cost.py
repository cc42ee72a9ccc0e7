"""What a step takes is measured, with what the processes it starts take."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slimface.core.spent import Spent
from slimface.recipe import cost
from slimface.recipe.cost import ASSUMED_WATTS, Meter, footprint, watts_per_core

MB = 2**20
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_time_and_processor_are_two_things(tmp_path: Path) -> None:
    with Meter(tmp_path / "cost.json") as idle:
        time.sleep(0.3)
    with Meter(tmp_path / "other.json") as busy:
        burn(0.3)
    assert idle.spent().seconds >= 0.3 > idle.spent().processor_seconds
    assert busy.spent().processor_seconds >= 0.29
    assert idle.spent().attempts == 1


@LINUX
def test_what_other_processes_take_counts(tmp_path: Path) -> None:
    code = "import time; x = bytearray(150 * 2**20); t = time.process_time()\n" \
        "while time.process_time() < t + 1.5: pass"  # fmt: skip
    with Meter(tmp_path / "cost.json") as meter:
        own = time.process_time()
        subprocess.run([sys.executable, "-c", code], check=True)
        own = time.process_time() - own
    spent = meter.spent()
    assert own < 0.5 and spent.processor_seconds >= 1.4
    assert spent.peak_bytes >= 150 * MB + cost._resident(os.getpid()) / 2


@LINUX
def test_a_peak_is_the_step_s_and_not_that_of_what_came_before(tmp_path: Path) -> None:
    block = np.ones(300 * MB, np.uint8)
    with Meter(tmp_path / "large.json") as large:
        pass
    del block
    with Meter(tmp_path / "small.json") as small:
        pass
    if not small.spent().peak_is_own:
        pytest.skip("the system does not forget peaks")
    assert large.spent().peak_bytes - small.spent().peak_bytes > 250 * MB


def test_attempts_add_up_even_if_one_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    with pytest.raises(KeyboardInterrupt), Meter(path):
        burn(0.2)
        raise KeyboardInterrupt
    with Meter(path) as second:
        burn(0.2)
    assert second.spent().attempts == 2
    assert second.spent().processor_seconds >= 0.39


@pytest.mark.parametrize("content", ["", '{"seconds": 3', '{"seconds": -1}', "[]"])
def test_a_note_that_cannot_be_read_counts_for_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cost.json"
    path.write_text(content)
    with Meter(path) as meter:
        pass
    assert meter.spent().attempts == 1
    assert Spent.model_validate_json(path.read_text()).attempts == 1


def test_energy_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_POWERCAP", tmp_path / "none")
    monkeypatch.setenv(cost.WATTS, "4")
    with Meter(tmp_path / "cost.json") as meter:
        burn(0.2)
    spent = meter.spent()
    assert spent.joules == pytest.approx(4 * spent.processor_seconds, abs=0.1)
    assert "4 W a core, not measured" in spent.energy


@pytest.mark.parametrize("text", ["", "many", "-3", "0", "inf", "nan"])
def test_watts_that_make_no_sense_are_not_believed(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(cost.WATTS, text)
    assert watts_per_core() == ASSUMED_WATTS


def test_a_counter_of_the_processor_is_believed_and_may_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "intel-rapl:0"
    place.mkdir()
    (place / "energy_uj").write_text("9_000_000".replace("_", ""))
    (place / "max_energy_range_uj").write_text("10000000")
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("5")
    monkeypatch.setattr(cost, "_POWERCAP", tmp_path)
    with Meter(tmp_path / "cost.json") as meter:
        (place / "energy_uj").write_text("2000000")
    assert meter.spent().joules == pytest.approx(3)
    assert "RAPL" in meter.spent().energy


def test_macs_are_counted_for_the_input_a_model_takes() -> None:
    from slimface.model.build import build
    from slimface.recipe.classes import classifier_spec

    small, large = (
        footprint(build(classifier_spec(f"classifier:resnet10t@{side}", ("a", "b")), seed=0))
        for side in (32, 64)
    )
    assert (small.height_px, large.width_px) == (32, 64)
    assert small.parameters == large.parameters
    assert 3.5 < large.macs / small.macs <= 4.2
