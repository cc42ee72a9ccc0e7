from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slimface.compress.latency import LatencyTable
from slimface.compress.place import Place
from slimface.compress.prune.measured import Found, _pace, _Try
from slimface.compress.prune.step import Prune
from slimface.core.budget import parse_budget
from slimface.errors import BudgetError, UsageError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.cost import cost_model
from slimface.model.detector import Detector
from slimface.step import Context

PLACE = Place(height_px=96, width_px=128)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.naver(width=8), seed=1)


@pytest.fixture(scope="module")
def table(home: Path, detector: Detector) -> LatencyTable:
    return LatencyTable.measure(detector, PLACE)


def test_fewer_channels_take_less_time(table: LatencyTable) -> None:
    widths = np.stack([table.sizes, np.ones_like(table.sizes)])
    whole, least = table.ms(widths)
    assert 0 < least < whole


def test_many_candidates_are_valued_as_one_by_one(table: LatencyTable) -> None:
    rng = np.random.default_rng(0)
    widths = rng.integers(1, table.sizes + 1, (3, 4, len(table.sizes)))
    together = table.ms(widths)
    assert together.shape == (3, 4)
    assert together[1, 2] == pytest.approx(float(table.ms(widths[1, 2])))


def test_nothing_is_measured_twice(
    table: LatencyTable, detector: Detector, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Place, "network_ms", refuse)
    monkeypatch.setattr("slimface.compress.latency.time_layers", refuse)
    again = LatencyTable.measure(detector, PLACE)
    assert again.ms(again.sizes) == table.ms(table.sizes)
    assert again.error == table.error


@pytest.mark.parametrize("text", ["-30% ms@tensorrt:1t", "5ms@onnx:1t"])
def test_a_runtime_that_nothing_is_exported_for_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="There are onnxruntime"):
        Place.of(parse_budget(text))


def test_a_place_is_what_the_budget_names() -> None:
    place = Place.of(parse_budget("-30% ms@onnxruntime:2t:320x240"))
    assert str(place) == "onnxruntime:2t:320x240"
    assert str(Place.of(parse_budget("5ms@onnxruntime"))) == "onnxruntime:1t:640x480"


def pruned(detector: Detector, folder: Path, *budgets: str) -> tuple[Detector, float]:
    """The detector after the budgets, and the share of the file that is left."""
    allocator = {"budget": budgets[0], "also": budgets[1:]}
    narrow = Prune.model_validate({"allocator": allocator})(detector, Context(folder=folder))
    sizes = [
        PLACE.export(one, folder / name).stat().st_size
        for name, one in (("a", detector), ("b", narrow))
    ]
    return narrow, sizes[1] / sizes[0]


def test_the_file_is_as_small_as_was_asked(detector: Detector, tmp_path: Path) -> None:
    """Names of layers and the like do not shrink, so parameters have to fall further."""
    narrow, left = pruned(detector, tmp_path, "-15% size")
    assert left == pytest.approx(0.85, rel=0.01)
    count = [sum(p.numel() for p in one.parameters()) for one in (detector, narrow)]
    assert count[1] / count[0] < left


def test_a_file_that_cannot_be_so_small_is_refused(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="out of reach"):
        pruned(detector, tmp_path, "-95% size")


def tried(detector: Detector, tmp_path: Path, saved: float, predicted: float) -> _Try:
    costs = cost_model(detector, channel_groups(detector), 64, 64)
    found = Found({}, {}, costs, {"ms": 10.0}, {"ms": 10 * (1 - saved)}, 0.0, PLACE)
    return _Try(found, tmp_path, {"ms": predicted})


@pytest.mark.parametrize("wanted", [0.1, 0.2, 0.3, 0.4, 0.5])
def test_tries_close_in_on_a_budget_where_time_jumps(
    detector: Detector, tmp_path: Path, wanted: float
) -> None:
    budgets = [parse_budget(f"-{100 * wanted:g}% ms@onnxruntime:1t")]
    rng = np.random.default_rng(int(100 * wanted))
    tries: list[_Try] = []
    off = []
    for _ in range(8):
        predicted = wanted / _pace("ms", tries, budgets)
        # Half as much as predicted, in blocks of 2 %, and never measured twice alike.
        saved = round(0.5 * predicted / 0.02) * 0.02 + rng.normal(0, 0.01)
        tries.append(tried(detector, tmp_path, saved, predicted))
        off.append(abs((1 - saved) / (1 - wanted) - 1))
    assert min(off) < 0.02
    assert float(np.median(off[2:])) < 0.05


def test_what_saved_nothing_is_followed_by_more(detector: Detector, tmp_path: Path) -> None:
    budgets = [parse_budget("-20% ms@onnxruntime:1t")]
    slower = tried(detector, tmp_path, -0.05, 0.2)
    assert 0.2 / _pace("ms", [slower], budgets) > 0.2
