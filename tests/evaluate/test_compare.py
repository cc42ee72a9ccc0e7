import json

import pytest

from slimface.core.faces import Faces
from slimface.core.record import Longest, Original
from slimface.errors import DataError, MissingError, ProtocolError
from slimface.evaluate.compare import (
    by_protocol,
    check_same_protocol,
    paired_difference,
    read_evaluations,
)
from slimface.evaluate.evaluator import evaluate


@pytest.fixture
def results(scene, spots, tmp_path):
    """Files of three evaluations: two of one protocol, one of another."""

    class Late(spots):
        """Misses the left half of each picture."""

        def detect(self, picture, settings):
            faces = super().detect(picture, settings)
            return faces.select(faces.boxes[:, 0] > 40) if len(faces) else Faces.none()

    files = {}
    for name, predictor, rule in (
        ("good", spots("good"), Original()),
        ("late", Late("late"), Original()),
        ("other", spots("good"), Longest(longest_px=200)),
    ):
        files[name] = tmp_path / f"{name}.json"
        evaluation = evaluate(predictor, scene.pictures, scene.truth, rule=rule)
        files[name].write_text(evaluation.model_dump_json())
    return files


def entries(*files):
    return [entry for file in files for entry in read_evaluations(file)]


def test_equal_protocols_stand_side_by_side(results):
    both = entries(results["good"], results["late"])
    check_same_protocol(both)
    assert by_protocol(both) == [both]


def test_mixing_protocols_is_refused_and_the_first_difference_named(results):
    with pytest.raises(ProtocolError, match=r"input is original in .*good\.json, and longest:200"):
        check_same_protocol(entries(results["good"], results["late"], results["other"]))


def test_different_protocols_are_grouped(results):
    groups = by_protocol(entries(results["good"], results["other"], results["late"]))
    assert [[entry.path.stem for entry in group] for group in groups] == [
        ["good", "late"],
        ["other"],
    ]


def test_two_models_are_compared_draw_by_draw(results):
    good, late = (entry.evaluation for entry in entries(results["good"], results["late"]))
    found = paired_difference(good, late, "all")
    assert found.low < found.high <= 0
    assert paired_difference(late, late, "all").doubt == 1


def test_figures_of_different_protocols_have_no_difference(results):
    good, other = (entry.evaluation for entry in entries(results["good"], results["other"]))
    assert paired_difference(good, other, "all") is None


def records(tmp_path, *files):
    lines = [json.dumps({"kind": "start", "record": {}})]
    for file in files:
        record = json.loads(file.read_text())
        lines.append(json.dumps({"kind": "evaluation", "step": 2, "record": record}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "run"


def test_evaluations_are_found_in_run_folders(results, tmp_path):
    run = records(tmp_path, results["good"], results["late"])
    assert [e.evaluation for e in entries(run)] == [
        e.evaluation for e in entries(results["good"], results["late"])
    ]


def test_a_last_line_cut_off_by_a_kill_is_passed_by(results, tmp_path):
    run = records(tmp_path, results["good"])
    with (run / "records.jsonl").open("a") as file:
        file.write('{"kind": "evaluation", "rec')
    assert len(entries(run)) == 1


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        (None, MissingError, "there is no such file"),
        ("no JSON", DataError, "not JSON"),
        ('{"kind": "benchmark"}', DataError, "no evaluation in it"),
        ('{"kind": "evaluation", "protocol": {}}', DataError, "model: Field required"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, text, error, what):
    file = tmp_path / "result.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=what) as raised:
        read_evaluations(file)
    assert "result.json" in str(raised.value)
