"""What each step took and bought, as the card says it."""

from pathlib import Path
from typing import Any

import pytest

from slimface.report.bills import bills, score, sources
from slimface.report.run import Entry, Run

START = {"parameters": 1000, "macs": 4_000_000, "height_px": 64, "width_px": 64}
SMALL = {"parameters": 360, "macs": 1_480_000, "height_px": 64, "width_px": 64}
SPENT = {
    "seconds": 90.0,
    "processor_seconds": 60.0,
    "peak_bytes": 500_000_000,
    "joules": 120.0,
    "energy": "guessed",
    "attempts": 1,
}


def step(number: int, kind: str, before: Any = START, after: Any = START, **changes: Any) -> Entry:
    record = {
        "changes": kind not in ("evaluate", "export"),
        "before": before, "after": after, "spent": {**SPENT, **changes.pop("spent", {})},
        "settings": {"allocator": {"rate": 0.4}}, **changes,
    }  # fmt: skip
    return Entry(number, kind, "step", record, "", None, "", "", "")


def found(number: int, top1: float, stamp: str = "a") -> Entry:
    record = {"top1": top1, "protocol": {"truth": stamp}}
    return Entry(number, "evaluate", "accuracy", record, "", None, "", "", "")


def run(*entries: Entry) -> Run:
    return Run(Path("x"), entries, "", ())


def test_each_step_has_its_line_and_the_last_is_the_sum() -> None:
    told = bills(
        run(step(1, "train"), step(2, "prune", START, SMALL), step(3, "evaluate", SMALL, SMALL))
    )
    assert [bill.title for bill in told][1:] == [
        "removed 40 % of the channels", "evaluate", "all steps",
    ]  # fmt: skip
    assert told[1].parameters == "360 (−64.0 %)" and told[1].macs == "1.48 M (−63.0 %)"
    assert told[0].parameters == told[2].parameters == ""
    assert told[3].parameters == "360 (−64.0 %)"
    assert (told[0].took, told[3].took) == ("1 min 30 s", "4 min 30 s")
    assert (told[0].energy, told[3].energy) == ("120 J", "360 J")
    assert (told[0].memory, told[3].memory) == ("500 MB", "500 MB")


def test_a_measurement_belongs_to_the_steps_that_changed_the_model_before_it() -> None:
    told = bills(
        run(
            step(1, "train"), step(2, "evaluate"), found(2, 0.8),
            step(3, "prune"), step(4, "train"), step(5, "evaluate"), found(5, 0.75),
            step(6, "export"), step(7, "evaluate"), found(7, 0.745),
            step(8, "evaluate"), found(8, 0.9, stamp="b"),
        )
    )  # fmt: skip
    quality = {bill.step: bill.quality for bill in told if bill.quality}
    assert quality == {
        1: "top-1 80.0",
        4: "top-1 75.0 (−5.0 with step 3)",
        6: "top-1 74.5 (−0.5)",
        8: "top-1 90.0",
    }


def test_average_precision_is_that_of_the_hardest_subset_that_has_one() -> None:
    subsets = [{"name": "easy", "average_precision": 0.9},
               {"name": "hard", "average_precision": 0.5},
               {"name": "none", "average_precision": None}]  # fmt: skip
    of = score([Entry(1, "x", "evaluation", {"subsets": subsets}, "", None, "", "", "")])
    assert of is not None and (of.name, of.value) == ("AP hard", 0.5)
    assert score([]) is None


def test_where_figures_come_from_is_said_once() -> None:
    told = sources(
        run(step(1, "train"), step(2, "train", spent={"attempts": 3, "peak_is_own": False}))
    )
    assert told[0] == "Energy: guessed."
    assert any("whole run" in one for one in told) and any("3 attempts" in one for one in told)


@pytest.mark.parametrize("record", [{}, {"spent": 3}, {"spent": {}, "seconds": 2}])
def test_runs_of_before_have_no_such_table(record: dict[str, Any]) -> None:
    assert bills(run(Entry(1, "train", "step", record, "", None, "", "", ""))) == []


def test_records_that_say_little_are_shown_as_far_as_they_go() -> None:
    entry = Entry(1, "train", "step", {"spent": {"joules": "?"}, "before": 3}, "", None, "", "", "")
    first, whole = bills(run(entry))
    assert (first.took, first.energy, first.parameters) == ("", "", "")
    assert whole.energy == "0 J"
