from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.compress.look import Look
from slimface.compress.prune.allocate import Sensitivity
from slimface.compress.prune.importance import Fpgm, importances
from slimface.compress.prune.probe import Probe
from slimface.compress.prune.sensitivity import Curve, Sensitivities, sensitivities
from slimface.core.budget import parse_budget
from slimface.data.source import DrawnScenes
from slimface.errors import UsageError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.cost import cost_model
from slimface.model.surgery import remove_channels
from slimface.report.sensitivity import drawn
from slimface.step import Context
from slimface.train.criterion import MultiBox

RATES = (0.5,)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(tmp_path_factory.mktemp("home")))
        detector = build(eresfd.naver(width=8), seed=1).eval()
        groups = channel_groups(detector)
        scores = importances(detector, groups, Fpgm())
        source = DrawnScenes(train=1, val=4, size_px=128)
        look = Look(batches=1, batch_size=4, size_px=128)
        probe = look(Context(folder=Path(), source=source), split="val")
        assert probe is not None
        yield (
            detector,
            groups,
            scores,
            probe,
            sensitivities(detector, groups, scores, probe, rates=RATES),
        )


def test_a_group_that_is_silent_loses_as_much_as_one_that_is_removed(case) -> None:  # type: ignore[no-untyped-def]
    detector, groups, scores, probe, found = case
    curve = next(curve for curve in found.curves if curve.size > 2)
    order = np.argsort(scores[curve.group].numpy(), kind="stable")
    kept = np.sort(order[round(curve.rates[0] * curve.size) :])
    narrow = remove_channels(detector, {curve.group: kept}, groups=groups).eval()
    batch = probe.batches[0]
    with torch.no_grad():
        raw = narrow(narrow.prepare(batch.images))
    loss = float(probe.criterion(narrow, raw, batch).total)
    assert curve.losses[0] == pytest.approx(loss, rel=1e-4)


def test_the_same_question_is_not_asked_twice(case, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    *given, found = case
    monkeypatch.setattr("slimface.compress.prune.sensitivity.silence_", None)
    assert sensitivities(*given, rates=RATES) == found


def test_every_group_has_a_curve_and_a_chart(case) -> None:  # type: ignore[no-untyped-def]
    _, groups, _, _, found = case
    assert [curve.group for curve in found.curves] == [g.name for g in groups if g.prunable]
    assert drawn(found).count("<polyline") == len(found.curves)


def test_what_hurts_least_goes_first(case) -> None:  # type: ignore[no-untyped-def]
    detector, groups, scores, _, _ = case
    costs = cost_model(detector, groups, 128, 128)
    harmless = costs.names[0]
    curves = tuple(
        Curve(group=n, size=int(s), rates=(0.5,), losses=(1.0 if n == harmless else 3.0,))
        for n, s in zip(costs.names, costs.sizes, strict=True)
    )
    found = Sensitivities(whole=1.0, curves=curves)
    gone = Sensitivity(budget=parse_budget("-5% macs"))(groups, scores, costs, curves=found)
    rates = {n: gone[n] / s for n, s in zip(costs.names, costs.sizes, strict=True)}
    assert rates[harmless] == max(rates.values())


def test_a_loss_that_falls_counts_as_none() -> None:
    curve = Curve(group="a", size=4, rates=(0.25, 0.5, 0.75), losses=(0.5, 2.0, 1.5))
    found = Sensitivities(whole=1.0, curves=(curve,))
    assert found.rise(0, np.array([0, 0.25, 0.375, 0.5, 0.75, 1])).tolist() == [0, 0, 0.5, 1, 1, 1]


def test_without_pictures_there_is_no_sensitivity(case) -> None:  # type: ignore[no-untyped-def]
    detector, groups, scores, probe, _ = case
    with pytest.raises(UsageError, match="--data"):
        sensitivities(detector, groups, scores, Probe((), MultiBox()))
    with pytest.raises(UsageError, match="between 0 and 1"):
        sensitivities(detector, groups, scores, probe, rates=(1.0,))


def test_curves_of_another_model_are_refused(case) -> None:  # type: ignore[no-untyped-def]
    detector, groups, scores, _, _ = case
    costs = cost_model(detector, groups, 128, 128)
    with pytest.raises(UsageError, match="of this model"):
        Sensitivity(rate=0.3)(groups, scores, costs, curves=Sensitivities(whole=1, curves=()))
