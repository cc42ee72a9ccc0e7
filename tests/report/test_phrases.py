"""Every kind of step has its words on the card."""

from typing import Any, get_args

import pytest

from slimface.recipe.recipe import AnyStep, Recipe
from slimface.report.phrases import PHRASES, phrase
from slimface.report.run import Entry

KINDS = {one.model_fields["kind"].default for one in get_args(get_args(AnyStep)[0])}


def test_every_kind_of_step_has_a_phrase() -> None:
    assert not KINDS - set(PHRASES), "add a line to slimface.report.phrases.PHRASES"


def entries(*records: tuple[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(1, "step", kind, record, "", None, "", "", "") for kind, record in records]


TRAIN = {"kind": "train", "schedule": {"epochs": 2}}
PRUNE = {"kind": "prune", "allocator": {"rate": 0.4}}
NET = {"kind": "train_net", "net": "pnet", "schedule": {"epochs": 2}}
SEARCH = {"kind": "b_fpgm", "target": 0.3}
LEARNT = [("epoch", {"epoch": 1}), ("epoch", {"epoch": 2})]


@pytest.mark.parametrize(
    ("step", "records", "words"),
    [
        (TRAIN, LEARNT, "trained for 2 epochs"),
        (TRAIN, [], ""),
        (NET, LEARNT[:1], "trained pnet for 1 epoch"),
        (
            {**TRAIN, "criterion": {"kind": "group_lasso",
                                    "of": {"kind": "distill", "teacher": "step:3"}}},
            LEARNT,
            "taught by step 3 for 2 epochs",
        ),
        (PRUNE, [], "removed 40 % of the channels by FPGM"),
        (
            {**PRUNE, "allocator": {"budget": "-60% params", "also": ["-30% macs"]}},
            [],
            "removed channels to meet −60% params and −30% macs by FPGM",
        ),
        ({**PRUNE, "allocator": {"kind": "per_group", "rates": {"a": 0.5}}}, [],
         "removed channels by FPGM"),
        (
            {"kind": "iterative_prune", "prune": PRUNE, "train": TRAIN, "rounds": 3},
            [],
            "removed 40 % of the channels by FPGM in 3 rounds",
        ),
        ({"kind": "prune_net", "train": NET}, [],
         "removed 50 % of the channels by TAYLOR in 6 rounds from pnet"),
        ({"kind": "soft_prune", "prune": PRUNE, "train": TRAIN}, LEARNT,
         "softly pruned 40 % of the channels by FPGM over 2 epochs"),
        ({"kind": "soft_prune", "prune": PRUNE, "train": TRAIN, "end": "zero"}, [],
         "softly zeroed 40 % of the channels by FPGM"),
        ({"kind": "fade_out", "prune": PRUNE, "train": TRAIN}, LEARNT,
         "faded out 40 % of the channels over 2 epochs"),
        ({"kind": "reinit"}, [], "given new random weights"),
        ({"kind": "search", "budgets": ["-40% macs"], "trials": 20}, [],
         "searched 20 candidates for -40% macs"),
        (SEARCH, [], "pruned 30 % of the parameters at rates found by B-FPGM"),
        ({"kind": "soft_search", "search": SEARCH, "train": TRAIN}, LEARNT,
         "softly pruned 30 % of the parameters at rates found by B-FPGM over 2 epochs"),
        ({"kind": "shrink"}, [("shrink", {"removed": 1})],
         "removed 1 zeroed filter without loss"),
        ({"kind": "shrink", "fold": True}, [], "removed zeroed filters"),
        ({"kind": "pseudo_label", "teacher": "eresfd", "pictures": "x", "train": TRAIN}, LEARNT,
         "trained on what eresfd finds over 2 epochs"),
        ({"kind": "export"}, [("export", {"format": "ncnn"})], "exported to ncnn"),
        ({"kind": "export"}, [], "exported to ONNX"),
        ({"kind": "qat", "train": TRAIN}, LEARNT,
         "trained with rounding to eight bits over 2 epochs"),
        ({"kind": "qat", "train": NET}, [], "trained pnet with rounding to eight bits"),
        ({"kind": "quantize"}, [], "quantised to eight bits for onnxruntime"),
        ({"kind": "evaluate"}, [], ""),
    ],
)  # fmt: skip
def test_a_step_is_told_by_its_resolved_settings(
    step: dict[str, Any], records: list[tuple[str, dict[str, Any]]], words: str
) -> None:
    settings = Recipe.parse({"name": "x", "steps": [step]}, where="x").steps[0]
    said = phrase(settings.kind, settings.model_dump(mode="json"), entries(*records))
    assert said == words


def test_settings_that_are_not_there_leave_words_and_no_error() -> None:
    for kind, of_kind in PHRASES.items():
        assert isinstance(of_kind({}, []), str), kind
        assert isinstance(of_kind({"prune": 3, "train": [], "rounds": "x"}, []), str), kind
    assert phrase("unheard of", {}, []) == ""
