from pathlib import Path

import pytest
import torch

from slimface.compress.place import Place
from slimface.compress.search.finalists import Finals
from slimface.compress.search.proxy import Proxy, ShortTraining
from slimface.compress.search.step import Search
from slimface.data.drawn_breeds import DrawnBreeds
from slimface.data.source import DrawnScenes
from slimface.errors import UsageError
from slimface.model.build import build
from slimface.model.classifier import IMAGENET, Classifier, classifier
from slimface.model.profile import profile
from slimface.step import Context
from slimface.train.schedule import Schedule

SIDE = 32
BREEDS = DrawnBreeds(classes=3, train=12, val=4, test=2, size_px=SIDE)
PROXY = Proxy(calibration=8, held_out=8, batch_size=4, share=0.25)
TRAINING = ShortTraining(pictures=12, schedule=Schedule(epochs=1, batch_size=4))
SEARCH = Search(
    budgets=("-40% macs",),
    trials=5,
    warmup=3,
    proxy=PROXY,
    finals=Finals(trained=2, verified=2, training=TRAINING),
)


@pytest.fixture(autouse=True)
def drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))


def of_breeds(model: str) -> Classifier:
    rule = IMAGENET.model_copy(update={"height_px": SIDE, "width_px": SIDE})
    classes = BREEDS.labelled("train").classes
    network = build(classifier(model, classes, preprocess=rule), seed=0).eval()
    assert isinstance(network, Classifier)
    return network


def test_the_rates_of_a_classifier_are_searched_under_its_own_size_and_decided_by_accuracy(
    tmp_path: Path,
) -> None:
    whole = of_breeds("resnet10t")
    folder = tmp_path / "run"
    folder.mkdir()
    finding, best = SEARCH.find(whole, Context(folder=folder, source=BREEDS))
    assert finding.decided_by == finding.scored_by == "accuracy"
    assert len(finding.losses) == 5
    before = profile(whole, SIDE, SIDE).macs
    assert finding.before == (before,)
    assert profile(best, SIDE, SIDE).macs <= 0.6 * before
    scores = [one.score for one in finding.finalists if one.score is not None]
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores)
    assert scores[0] == max(scores)
    answer = best(torch.zeros(1, 3, SIDE, SIDE))
    assert answer.shape == (1, 3)


def test_a_classifier_is_not_searched_on_faces(tmp_path: Path) -> None:
    scenes = DrawnScenes(train=8, val=2, size_px=64)
    with pytest.raises(UsageError, match="needs pictures with classes"):
        SEARCH.find(of_breeds("resnet10t"), Context(folder=tmp_path, source=scenes))


def test_the_files_of_classifiers_are_timed_beside_each_other(tmp_path: Path) -> None:
    place = Place(height_px=SIDE, width_px=SIDE)
    sizes = ("resnet10t", "resnet26")
    files = [place.export(of_breeds(name), tmp_path / name) for name in sizes]
    small, large = place.network_ms(files, rounds=3)
    assert 0 < small < large
