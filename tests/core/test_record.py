import json
from datetime import UTC, datetime

import pytest

from slimface.core.record import (
    Evaluation,
    External,
    Fitted,
    Longest,
    Multiscale,
    Original,
    Protocol,
    SubsetResult,
)
from slimface.errors import RecipeError

PROTOCOL = Protocol(
    evaluator="widerface-1",
    truth="wider-val",
    truth_sha256="0" * 64,
    pictures=120,
    pictures_in_truth=3226,
    input=Original(),
    score_floor=0.05,
    nms_overlap=0.3,
    pre_nms=5000,
    cap=750,
)
EVALUATION = Evaluation(
    model="eresfd",
    model_fingerprint="f" * 64,
    protocol=PROTOCOL,
    subsets=(SubsetResult(name="hard", average_precision=0.5, faces=4),),
    detections=9,
    date=datetime(2026, 11, 22, tzinfo=UTC),
    version="0.1.0",
)


@pytest.mark.parametrize(
    "change",
    [
        {"evaluator": "widerface-2"},
        {"truth": "wider-val, changed"},
        {"truth_sha256": "1" * 64},
        {"pictures": 121},
        {"pictures_in_truth": 120},
        {"input": Original(max_pixels=1000)},
        {"input": Longest(longest_px=640)},
        {"input": Multiscale()},
        {"input": Multiscale(keep_lone=True)},
        {"input": External()},
        {"score_floor": 0.02},
        {"nms_overlap": None},
        {"pre_nms": 1000},
        {"cap": 500},
    ],
)
def test_whatever_moves_a_figure_moves_the_stamp(change):
    other = PROTOCOL.model_copy(update=change)
    assert other.stamp != PROTOCOL.stamp
    field, mine, theirs = PROTOCOL.difference(other)
    assert {field: theirs} == change
    assert mine == getattr(PROTOCOL, field)


def test_equal_protocols_have_equal_stamps_and_no_difference():
    other = Protocol.parse(PROTOCOL.model_dump_json(), where="test")
    assert other.stamp == PROTOCOL.stamp
    assert PROTOCOL.difference(other) is None


def test_a_part_never_passes_as_the_whole():
    assert PROTOCOL.scope == "wider-val part 120/3226"
    whole = PROTOCOL.model_copy(update={"pictures": 3226})
    assert whole.scope == "wider-val (3226 pictures)"


@pytest.mark.parametrize(
    "rule",
    [
        Original(),
        Longest(longest_px=640),
        Fitted(height_px=48, width_px=64),
        Multiscale(),
        External(),
    ],
)
def test_every_input_rule_comes_back_from_json(rule):
    protocol = PROTOCOL.model_copy(update={"input": rule})
    assert Protocol.parse(json.loads(protocol.model_dump_json()), where="test").input == rule


def test_an_evaluation_comes_back_from_json():
    assert Evaluation.parse(EVALUATION.model_dump_json(), where="test") == EVALUATION


def test_a_subset_is_found_by_its_name():
    assert EVALUATION.subset("hard").faces == 4
    with pytest.raises(KeyError, match="no subset 'easy'"):
        EVALUATION.subset("easy")


def test_a_figure_beyond_one_is_refused():
    data = EVALUATION.model_dump(mode="json")
    data["subsets"][0]["average_precision"] = 67.7
    with pytest.raises(RecipeError, match=r"subsets\.0\.average_precision"):
        Evaluation.parse(data, where="test")
