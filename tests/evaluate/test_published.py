"""Published weights on real pictures: the figures that data/README.md states."""

import pytest

from slimface.data.widerface import read_widerface
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of


@pytest.mark.data
@pytest.mark.slow
def test_eresfd_scores_what_its_weights_are_known_to_score(wider_root, weights_root, monkeypatch):
    torch = pytest.importorskip("torch")
    from slimface.loading import load

    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    torch.set_num_threads(1)
    pictures = read_widerface(wider_root, "val")
    evaluation = evaluate(load("eresfd"), pictures, truth_of(pictures, wider_root), resamples=0)
    figures = [100 * result.average_precision for result in evaluation.subsets]
    assert evaluation.protocol.scope == "wider-val part 120/3226"
    assert figures == pytest.approx([83.3, 80.8, 67.7], abs=0.3)
