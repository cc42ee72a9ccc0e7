from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.core.faces import Faces
from slimface.core.spec import DetectorSpec
from slimface.deploy.pipeline import Picture, Settings
from slimface.errors import UsageError
from slimface.export.parity import MARGIN, ParityReport, Tolerance, parity
from slimface.model.eresfd import naver

PICTURE = np.zeros((8, 8, 3), np.uint8)


@dataclass
class Found:
    """A predictor whose answer is known."""

    faces: Faces

    @property
    def spec(self) -> DetectorSpec:
        return naver()

    def detect(self, picture: Picture, settings: Settings = Settings()) -> Faces:  # noqa: B008
        assert settings.score_floor is not None
        return self.faces.above(settings.score_floor)


def faces(*rows: tuple[float, float, float, float, float]) -> Faces:
    table = np.asarray(rows, dtype=np.float32).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4])


def compare(ours: Faces, theirs: Faces, **options: object) -> ParityReport:
    return parity(Found(ours), Found(theirs), [("one", PICTURE)], **options)  # type: ignore[arg-type]


A = (0, 0, 100, 100, 0.9)
B = (200, 0, 260, 60, 0.5)


def test_what_is_the_same_agrees() -> None:
    report = compare(faces(A, B), faces(A, B))
    assert (report.faces, report.matched, report.missed, report.extra) == (2, 2, 0, 0)
    assert report.agrees
    assert report.smallest_iou == 1


def test_a_missed_and_an_extra_face_are_counted() -> None:
    report = compare(faces(A, B), faces(A, (400, 0, 500, 100, 0.8)))
    assert (report.matched, report.missed, report.extra) == (1, 1, 1)
    assert report.matched_share == pytest.approx(1 / 3)
    assert not report.agrees
    assert "one: 1 of 2 missed, 1 extra" in report.explain()


def test_a_box_moved_by_more_than_the_tolerance_is_another_box() -> None:
    moved = (1.5, 0, 101.5, 100, 0.9)  # overlap 98.5 / 101.5
    assert compare(faces(A), faces(moved)).missed == 1
    assert compare(faces(A), faces(moved), tolerance=Tolerance(iou=0.97)).matched == 1


def test_a_score_that_falls_below_the_threshold_is_drift_and_no_loss() -> None:
    report = compare(faces((0, 0, 9, 9, 0.301)), faces((0, 0, 9, 9, 0.299)))
    assert (report.matched, report.missed, report.extra) == (1, 0, 0)
    assert report.largest_score_drift == pytest.approx(0.002, abs=1e-5)
    other_way = compare(faces((0, 0, 9, 9, 0.299), A), faces((0, 0, 9, 9, 0.301), A))
    assert (other_way.faces, other_way.matched, other_way.extra) == (1, 1, 0)
    assert other_way.largest_score_drift == pytest.approx(0.002, abs=1e-5)


def test_a_score_that_falls_by_more_than_the_margin_is_a_loss() -> None:
    assert compare(faces((0, 0, 9, 9, 0.35)), faces((0, 0, 9, 9, 0.3 - MARGIN - 0.01))).missed == 1


def test_one_face_does_not_pass_for_two() -> None:
    report = compare(faces(A, (0, 0, 100, 100, 0.8)), faces(A))
    assert (report.matched, report.missed) == (1, 1)


def test_scores_that_drift_too_far_do_not_agree() -> None:
    report = compare(faces(A), faces((0, 0, 100, 100, 0.88)))
    assert report.matched_share == 1
    assert not report.agrees


def test_landmarks_that_wander_do_not_agree() -> None:
    box = faces(A)
    still = np.full((1, 5, 2), 50, np.float32)
    moved = still.copy()
    moved[0, 2, 0] += 3
    for points, agrees, drift in ((still, True, 0.0), (moved, False, 0.03)):
        report = compare(Faces(box.boxes, box.scores, still), Faces(box.boxes, box.scores, points))
        assert report.largest_landmark_drift == pytest.approx(drift)
        assert report.agrees is agrees
    assert compare(box, box).largest_landmark_drift is None


def test_without_a_face_nothing_is_proven() -> None:
    report = compare(faces(), faces())
    assert not report.agrees
    assert "no face" in report.explain()


def test_without_a_picture_there_is_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="no picture"):
        parity(Found(faces(A)), Found(faces(A)), [])


def test_the_worst_pictures_come_first() -> None:
    class Second(Found):
        def detect(self, picture: Picture, settings: Settings = Settings()) -> Faces:  # noqa: B008
            return faces() if picture[0, 0, 0] else super().detect(picture, settings)

    shown = [("fine", PICTURE), ("bad", PICTURE + 1)]
    report = parity(Found(faces(A)), Second(faces(A)), shown)
    assert [one.picture for one in report.worst] == ["bad", "fine"]


def test_the_report_survives_json() -> None:
    report = compare(faces(A, B), faces(A))
    assert ParityReport.model_validate_json(report.model_dump_json()) == report


boxes = st.lists(
    st.tuples(
        st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9),
        st.integers(31, 100).map(lambda percent: percent / 100),
    ),
    max_size=12,
)  # fmt: skip


@given(boxes, boxes)
@settings(max_examples=50, deadline=None)
def test_swapping_the_sides_swaps_missed_and_extra(
    first: list[tuple[int, ...]], second: list[tuple[int, ...]]
) -> None:
    """With distinct boxes, no face has two partners to choose from."""

    def distinct(rows: list[tuple[int, ...]]) -> Faces:
        unique = {row[:4]: row for row in rows}.values()
        return faces(*((x, y, x + w, y + h, s) for x, y, w, h, s in unique))

    there = compare(distinct(first), distinct(second))
    back = compare(distinct(second), distinct(first))
    assert (there.matched, there.missed, there.extra) == (back.matched, back.extra, back.missed)
    assert there.largest_score_drift == back.largest_score_drift
    assert there.faces == there.matched + there.missed
