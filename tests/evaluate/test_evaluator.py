import time

import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.core.record import External, Fitted, Longest, Multiscale, Original
from slimface.deploy.pipeline import Settings
from slimface.errors import DataError, ProtocolError, UsageError
from slimface.evaluate.detection_log import FILE
from slimface.evaluate.evaluator import detect, evaluate
from slimface.evaluate.predictions import read_predictions
from slimface.evaluate.scoring import protocol_of, score
from slimface.evaluate.truth import Truth


def figures(evaluation):
    """Everything that does not depend on when and how fast it ran."""
    return evaluation.model_dump(exclude={"date", "seconds", "command"})


def test_rectangles_are_found_and_scored(scene, spots):
    evaluation = evaluate(spots(), scene.pictures, scene.truth, command=["slimface", "evaluate"])
    (result,) = evaluation.subsets
    assert result.name == "all"
    assert result.faces == scene.pictures.face_count
    assert 0.4 < result.average_precision < 1
    assert result.low <= result.average_precision <= result.high
    assert evaluation.model == "spots"
    assert evaluation.command == ("slimface", "evaluate")
    assert sum(part.faces for part in evaluation.by_height) == result.faces


def test_the_protocol_says_how_it_was_made(scene, spots):
    evaluation = evaluate(
        spots(), scene.pictures, scene.truth, rule=Longest(longest_px=320),
        score_floor=0.1, nms_overlap=0.4, pre_nms=900, cap=20,
    )  # fmt: skip
    protocol = evaluation.protocol
    assert protocol.input == Longest(longest_px=320)
    assert (protocol.score_floor, protocol.nms_overlap) == (0.1, 0.4)
    assert (protocol.pre_nms, protocol.cap) == (900, 20)
    assert protocol.truth_sha256 == scene.truth.sha256


@pytest.mark.parametrize(
    ("rule", "scales"),
    [
        (Original(), [(1.0, None)]),
        (Original(max_pixels=60 * 80), [(0.5, None)]),
        (Original(max_pixels=10**9), [(1.0, None)]),
        (Longest(longest_px=640), [(None, 640)]),
        (Multiscale(max_pixels=120 * 160), [(1, None), (1, None), (0.5, None), (0.75, None)]),
    ],
)
def test_each_rule_asks_for_its_sizes(scene, spots, rule, scales):
    predictor = spots()
    evaluate(predictor, scene.pictures[:1], scene.truth, rule=rule)
    assert [(one.scale, one.longest_px) for one in predictor.asked] == scales


def test_part_of_the_truth_says_so(scene, spots):
    evaluation = evaluate(spots(), scene.pictures[:3], scene.truth)
    assert evaluation.protocol.scope == "annotations part 3/8"


def test_an_interrupted_evaluation_goes_on_where_it_stopped(scene, spots, tmp_path):
    whole = evaluate(spots(), scene.pictures, scene.truth)
    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        evaluate(spots(dies_after=5), scene.pictures, scene.truth, folder=folder)
    predictor = spots()
    resumed = evaluate(predictor, scene.pictures, scene.truth, folder=folder)
    assert len(predictor.asked) == 3
    assert figures(resumed) == figures(whole)
    assert resumed.seconds > 0


def test_a_finished_evaluation_detects_nothing_again(scene, spots, tmp_path):
    first = evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path / "kept")
    again = evaluate(spots(dies_after=0), scene.pictures, scene.truth, folder=tmp_path / "kept")
    assert figures(again) == figures(first)
    assert again.seconds == pytest.approx(first.seconds, abs=0.01)


def test_a_line_cut_off_by_a_kill_is_dropped(scene, spots, tmp_path):
    whole = evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)
    log = tmp_path / FILE
    log.write_bytes(log.read_bytes()[:-30])
    predictor = spots()
    resumed = evaluate(predictor, scene.pictures, scene.truth, folder=tmp_path)
    assert len(predictor.asked) == 1
    assert figures(resumed) == figures(whole)
    again = evaluate(spots(dies_after=0), scene.pictures, scene.truth, folder=tmp_path)
    assert figures(again) == figures(whole)


def test_a_broken_line_within_the_log_is_named(scene, spots, tmp_path):
    evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)
    lines = (tmp_path / FILE).read_text().split("\n")
    lines[3] = lines[3][:-9]
    (tmp_path / FILE).write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"{FILE}:4: not a line of a log"):
        evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)


def test_a_foreign_file_in_the_folder_is_left_alone(scene, spots, tmp_path):
    (tmp_path / FILE).write_text("something else")
    with pytest.raises(DataError, match="not a log of detections"):
        evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)
    assert (tmp_path / FILE).read_text() == "something else"


def test_another_model_in_the_same_folder_is_refused(scene, spots, tmp_path):
    evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)
    with pytest.raises(ProtocolError, match="detections of another model"):
        evaluate(spots("other"), scene.pictures, scene.truth, folder=tmp_path)


def test_another_protocol_in_the_same_folder_is_refused(scene, spots, tmp_path):
    evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path)
    with pytest.raises(ProtocolError, match=r"score_floor is 0\.05, not 0\.2"):
        evaluate(spots(), scene.pictures, scene.truth, folder=tmp_path, score_floor=0.2)


def test_a_predictor_without_a_fingerprint_is_refused_unless_one_is_given(scene, spots):
    class Nameless(spots):
        fingerprint = None

    with pytest.raises(UsageError, match=r"no fingerprint\(\)"):
        evaluate(Nameless(), scene.pictures, scene.truth)
    evaluation = evaluate(Nameless(), scene.pictures, scene.truth, fingerprint="mine")
    assert evaluation.model_fingerprint == "mine"


def test_several_workers_find_the_same(scene, spots):
    alone = evaluate(spots(), scene.pictures, scene.truth)
    together = evaluate(spots(), scene.pictures, scene.truth, workers=3)
    assert figures(together) == figures(alone)


def test_an_error_in_a_worker_stops_soon(scene, spots):
    class Failing(spots):
        def detect(self, picture, settings):
            time.sleep(0.01)
            super().detect(picture, settings)
            raise DataError("broken")

    predictor = Failing()
    with pytest.raises(DataError, match="broken"):
        evaluate(predictor, scene.pictures, scene.truth, workers=2)
    assert len(predictor.asked) < len(scene.pictures)


def test_progress_sees_every_picture(scene, spots):
    seen = []

    def progress(items, description, *, total):
        seen.append((description, total))
        for item in items:
            seen.append(item[0])
            yield item

    evaluate(spots(), scene.pictures, scene.truth, progress=progress)
    assert seen == [("evaluate", 8), *(one.name for one in scene.pictures)]


def test_a_picture_that_cannot_be_read_is_named(scene, spots):
    scene.pictures[2].path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=scene.pictures[2].path.name):
        evaluate(spots(), scene.pictures, scene.truth)


def test_no_picture_is_an_error(scene, spots):
    with pytest.raises(DataError, match="no picture to evaluate"):
        evaluate(spots(), scene.pictures[:0], scene.truth)


def test_detections_of_other_programs_are_no_input(scene, spots, tmp_path):
    with pytest.raises(UsageError, match="another program"):
        evaluate(spots(), scene.pictures, scene.truth, rule=External(), folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_saved_predictions_score_the_same(scene, spots, tmp_path):
    direct = evaluate(spots(), scene.pictures, scene.truth, save_predictions=tmp_path)
    detections, digest = read_predictions(tmp_path, scene.truth.names)
    protocol = protocol_of(scene.truth, External(), Settings())
    scored = score(detections, scene.truth, protocol, model="saved", model_fingerprint=digest)
    assert scored.subsets == direct.subsets
    assert scored.by_height == direct.by_height
    assert protocol.score_floor is None


def test_intervals_can_be_left_out(scene, spots):
    evaluation = evaluate(spots(), scene.pictures, scene.truth, resamples=0)
    assert evaluation.subsets[0].low is None
    assert evaluation.subsets[0].resampled == ()


def test_a_range_of_heights_does_not_answer_for_mistakes_of_another_size():
    truth = Truth(
        "drawn", ("a.jpg",), np.array([1]), np.array([[0.0, 0, 10, 10]]),
        {"all": np.array([True])}, 1, empty_pictures_count=True,
    )  # fmt: skip
    detections = [Faces(np.float32([[50, 0, 80, 300], [0, 0, 10, 10]]), np.float32([0.9, 0.8]))]
    protocol = protocol_of(truth, External(), Settings())
    evaluation = score(detections, truth, protocol, model="drawn", model_fingerprint="drawn")
    assert evaluation.subset("all").average_precision == 0.5
    assert evaluation.by_height[0].average_precision == 1
    assert evaluation.by_height[0].name == "0-16 px"
    assert evaluation.by_height[-1].average_precision is None


def test_a_subset_without_faces_has_no_figure(scene):
    truth = scene.truth.restricted(
        name for name, count in zip(scene.truth.names, scene.truth.counts, strict=True) if not count
    )
    protocol = protocol_of(truth, External(), Settings())
    assert len(truth) > 0
    evaluation = score(
        [Faces.none()] * len(truth), truth, protocol, model="none", model_fingerprint="none"
    )
    assert evaluation.subsets[0].average_precision is None
    assert evaluation.model_dump_json()


@pytest.mark.parametrize(
    ("shape", "seen"), [((100, 200), (32, 64)), ((200, 100), (48, 24)), ((20, 30), (20, 30))]
)
def test_pictures_are_fitted_into_the_size_of_a_benchmark_and_never_enlarged(spots, shape, seen):
    sizes = []

    class Recorder:
        spec = spots().spec

        def detect(self, picture, settings):
            sizes.append(settings.network_size(*picture.shape[:2]))
            return Faces.none()

    rule = Fitted(height_px=48, width_px=64)
    detect(Recorder(), np.zeros((*shape, 3), np.uint8), Settings(), rule)
    assert sizes == [seen]
