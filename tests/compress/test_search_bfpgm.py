import math
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from slimface.compress.search.bfpgm import REJECTED, BFpgm, Defects, _Lab
from slimface.compress.search.ucb import UcbSampler, _matern, _Process
from slimface.data.source import DrawnScenes
from slimface.errors import BudgetError, UsageError
from slimface.model import eresfd, retinaface, zoo
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.step import Context
from slimface.train.schedule import Schedule

SCENES = DrawnScenes(train=20, val=2, size_px=96)
STEP = BFpgm(
    target=0.3,
    random=2,
    guided=1,
    size_px=96,
    schedule=Schedule(epochs=1, batch_size=4, optimizer="adam", decay="none"),
)

PUBLISHED = {
    11.94: (20, 0, 7.9, 20, 20, 17.2),
    21.77: (0, 0, 0, 40, 40, 39.8),
    31.09: (21.3, 4.5, 30.5, 47.1, 32.1, 44.8),
    59.33: (8.2, 0, 80, 80, 80, 16.4),
}
"""Per cent of the parameters that are zero, and the rates of the six groups: B-FPGM's README."""


@pytest.fixture(scope="module", autouse=True)
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.bfpgm(), seed=0).eval()


def lab(detector: Detector, step: BFpgm, folder: Path) -> _Lab:
    return _Lab.of(step, detector, Context(folder=folder, source=SCENES, workers=0))


@pytest.mark.data
@pytest.mark.parametrize(("share", "rates"), PUBLISHED.items())
def test_published_rates_zero_the_published_share_of_parameters(
    share: float,
    rates: tuple[float, ...],
    tmp_path: Path,
    weights_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    step = BFpgm(groups="eresfd-files")
    place = lab(zoo.load("eresfd-bfpgm"), step, tmp_path)
    zeroed = place.zeroed(dict(zip(place.names, [rate / 100 for rate in rates], strict=True)))
    assert 100 * place.zeros(zeroed) == pytest.approx(share, abs=0.01)


def test_without_the_defect_a_draw_lands_on_the_target(detector: Detector, tmp_path: Path) -> None:
    step = STEP.model_copy(update={"defects": Defects(rejects=False)})
    place = lab(detector, step, tmp_path)
    rates = place._on_target(dict(zip(place.names, (0.9, 0.1, 0.4, 0.2, 0.7, 0.3), strict=True)))
    assert place.zeros(place.zeroed(rates)) == pytest.approx(STEP.target, abs=0.02)
    assert rates["g1"] / rates["g2"] == pytest.approx(9)


def test_off_the_target_nothing_is_trained(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimface.compress.search.bfpgm.epochs", lambda *_: 1 / 0)
    place = lab(detector, STEP, tmp_path)
    _, zeros, value = place.evaluate(dict.fromkeys(place.names, 0.0), 0)
    assert value == REJECTED and zeros < 0.01


def test_layers_nothing_depends_on_count_only_with_the_defect(
    detector: Detector, tmp_path: Path
) -> None:
    with_it = lab(detector, STEP, tmp_path)._layers()
    mended = STEP.model_copy(update={"defects": Defects(idle=False)})
    without = lab(detector, mended, tmp_path)._layers()
    gone = set(with_it) - set(without)
    assert gone and all(name.startswith("base.m0.b2_5") for name in gone)


def test_coupled_groups_can_be_removed_and_single_filters_stay(
    detector: Detector, tmp_path: Path
) -> None:
    rates = {f"g{i}": 0.5 for i in range(1, 7)}
    mended = STEP.model_copy(update={"defects": Defects.none()})
    cut = lab(detector, mended, tmp_path).cut(rates)
    assert profile(cut, 64, 64).parameters < 0.5 * profile(detector, 64, 64).parameters
    zeroed = lab(detector, STEP, tmp_path).zeroed(rates)
    assert profile(zeroed, 64, 64).parameters == profile(detector, 64, 64).parameters


def test_a_search_counts_what_it_lost_and_goes_on(tmp_path: Path, detector: Detector) -> None:
    context = Context(folder=tmp_path, source=SCENES, workers=0)
    rates, value, counts = STEP.find(detector, context)
    assert counts["evaluations"] == 4
    # The first, with all rates 0.04 above the target, is the only one sure to be near it.
    assert counts["lost"] <= 3
    assert REJECTED < value < 0 and set(rates) == {f"g{i}" for i in range(1, 7)}
    more = STEP.model_copy(update={"guided": 2})
    assert more.find(detector, context)[2]["evaluations"] == 5


def test_a_target_that_no_draw_meets_is_said(tmp_path: Path, detector: Detector) -> None:
    step = STEP.model_copy(update={"tolerance": 1e-6, "random": 1, "guided": 0})
    with pytest.raises(BudgetError, match="None of 2 evaluations"):
        step.find(detector, Context(folder=tmp_path, source=SCENES))


def test_groups_of_another_architecture_are_refused(tmp_path: Path) -> None:
    other = build(retinaface.retinaface(), seed=0)
    with pytest.raises(UsageError, match="name no layer"):
        lab(other, STEP, tmp_path)


def test_the_process_goes_through_its_points_and_doubts_far_from_them() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((30, 2))
    values = np.sin(5 * points[:, 0]) + points[:, 1]
    process = _Process(points, values)
    spread, mean = values.std(), values.mean()
    near = process.bound(points) * spread + mean
    np.testing.assert_allclose(near, values, atol=0.05)
    far = np.array([[30.0, -20.0]])
    # The prior: mean nothing, deviation one, of which the bound takes 2.576.
    assert process.bound(far)[0] == pytest.approx(2.576, abs=0.1)


def test_the_kernel_is_matern_of_five_halves() -> None:
    expected = (1 + math.sqrt(5) * 0.7 + 5 * 0.49 / 3) * math.exp(-math.sqrt(5) * 0.7)
    assert _matern(np.array([1.4]), 2.0)[0] == pytest.approx(expected)


def test_guided_draws_find_what_random_ones_do_not() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def best(warmup: int) -> float:
        study = optuna.create_study(direction="maximize", sampler=UcbSampler(0, warmup))
        study.optimize(
            lambda trial: -sum((trial.suggest_float(n, 0, 1) - 0.3) ** 2 for n in "abc"), 25
        )
        return float(study.best_value)

    assert best(warmup=8) > -1e-3 > best(warmup=25)


def test_the_detector_given_stays_as_it_was(detector: Detector, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    lab(detector, STEP, tmp_path).zeroed({"g1": 0.9})
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name
