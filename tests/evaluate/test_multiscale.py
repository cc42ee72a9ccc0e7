import numpy as np
import pytest

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.core.record import Multiscale
from slimface.deploy.pipeline import Settings
from slimface.evaluate.multiscale import detect_multiscale, other_scales, vote

PAIR = np.float32([[0, 0, 9, 9], [0, 0, 9, 14], [100, 100, 120, 120]])
PAIR_SCORES = np.float32([0.9, 0.3, 0.6])


def test_boxes_of_one_face_become_their_weighted_mean():
    """Bottoms 9 and 14 with weights 0.9 and 0.3: (8.1 + 4.2) / 1.2 = 10.25; the best score."""
    faces = vote(PAIR, PAIR_SCORES, overlap=0.3, keep_lone=False)
    np.testing.assert_allclose(faces.boxes, [[0, 0, 9, 10.25]], rtol=1e-6)
    np.testing.assert_allclose(faces.scores, [0.9])


def test_lone_boxes_stay_where_the_rule_keeps_them():
    faces = vote(PAIR, PAIR_SCORES, overlap=0.3, keep_lone=True)
    np.testing.assert_allclose(faces.boxes, [[0, 0, 9, 10.25], [100, 100, 120, 120]], rtol=1e-6)
    np.testing.assert_allclose(faces.scores, [0.9, 0.6])


def test_an_overlap_of_exactly_the_limit_votes_with_corners_inclusive():
    """Three of ten columns shared, all within the first: 30 / 100."""
    boxes = np.float32([[0, 0, 9, 9], [0, 0, 2, 9]])
    assert len(vote(boxes, np.float32([1, 0.5]), overlap=0.3, keep_lone=False)) == 1
    assert len(vote(boxes, np.float32([1, 0.5]), overlap=0.31, keep_lone=False)) == 0


def test_the_cap_keeps_the_best():
    boxes = np.float32([[i * 50, 0, i * 50 + 9, 9] for i in range(5)])
    scores = np.float32([0.1, 0.5, 0.3, 0.9, 0.2])
    faces = vote(boxes, scores, overlap=0.3, keep_lone=True, cap=2)
    np.testing.assert_allclose(faces.scores, [0.9, 0.5])


def test_voting_on_nothing_gives_nothing():
    none = Faces.none()
    assert len(vote(none.boxes, none.scores, overlap=0.3, keep_lone=True)) == 0


def test_scores_of_zero_have_no_weighted_mean_and_the_first_stands_for_them():
    boxes = np.float32([[0, 0, 9, 9], [0, 0, 9, 9]])
    faces = vote(boxes, np.float32([0, 0]), overlap=0.3, keep_lone=False)
    np.testing.assert_array_equal(faces.boxes, boxes[:1])


def plain_vote(boxes, scores, overlap, keep_lone):
    """One cluster after the other."""
    rows = [(boxes[i].astype(float), float(scores[i])) for i in np.argsort(-scores, kind="stable")]
    merged = []
    while rows:
        stacked = np.array([box for box, _ in rows], dtype=np.float32)
        joins = overlaps(stacked[:1], stacked, pixel=1)[0] >= overlap
        joins[0] = True
        cluster = [row for row, joined in zip(rows, joins, strict=True) if joined]
        rows = [row for row, joined in zip(rows, joins, strict=True) if not joined]
        if keep_lone or len(cluster) > 1:
            weights = [score for _, score in cluster]
            merged.append(
                (np.average([box for box, _ in cluster], axis=0, weights=weights), weights[0])
            )
    return merged


@pytest.mark.parametrize("keep_lone", [True, False])
@pytest.mark.parametrize("count", [1, 40, 700])
def test_it_equals_one_cluster_after_the_other(count, keep_lone):
    draws = np.random.default_rng(count)
    corner = draws.uniform(0, 300, (count, 2))
    boxes = np.float32(np.hstack([corner, corner + draws.uniform(10, 60, corner.shape)]))
    scores = np.float32(draws.integers(1, 40, count) / 40)
    faces = vote(boxes, scores, overlap=0.3, keep_lone=keep_lone)
    expected = plain_vote(boxes, scores, 0.3, keep_lone)
    assert len(faces) == len(expected)
    for box, score, (mean, best) in zip(faces.boxes, faces.scores, expected, strict=True):
        np.testing.assert_allclose(box, mean, rtol=1e-5)
        assert score == np.float32(best)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.5, [(0.25, True), (0.375, True)]),
        (0.8, [(0.5, True), (0.65, True)]),
        (1.0, [(0.5, True), (0.75, True)]),
        (1.5, [(0.5, True), (1.5, False)]),
        (2.0, [(0.5, True), (2.0, False)]),
        (3.0, [(0.5, True), (2.0, False), (3.0, False)]),
        (9.0, [(0.5, True), (2.0, False), (4.0, False), (8.0, False), (9.0, False)]),
    ],
)
def test_the_scales_follow_the_published_procedure(limit, expected):
    scales, wants_large = zip(*other_scales(limit), strict=True)
    assert scales == pytest.approx([scale for scale, _ in expected])
    assert list(wants_large) == [large for _, large in expected]


class Witness:
    """Finds one box of a given size in the left upper corner and notes how it was asked."""

    spec = None

    def __init__(self, width, height=None):
        self.width, self.height, self.asked = width, height or width, []

    def detect(self, picture, settings):
        self.asked.append((settings.scale, int(picture[0, 0, 0])))
        return Faces(np.float32([[0, 0, self.width, self.height]]), np.float32([0.5]))


def picture_of(height, width):
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[:, 0] = 255
    return picture


def test_the_second_pass_sees_the_mirrored_picture_and_its_boxes_are_turned_back():
    witness = Witness(20)
    rule = Multiscale(max_pixels=100 * 100, keep_lone=True)
    faces = detect_multiscale(witness, picture_of(100, 100), Settings(cap=750), rule)
    assert witness.asked == [(1.0, 255), (1.0, 0), (0.5, 255), (0.75, 255)]
    assert sorted(faces.boxes[:, 0].tolist()) == [0, 80]


def test_no_pass_sees_more_pixels_than_the_limit():
    witness = Witness(20)
    rule = Multiscale(max_pixels=50 * 50)
    detect_multiscale(witness, picture_of(100, 100), Settings(cap=750), rule)
    assert [scale for scale, _ in witness.asked] == pytest.approx([0.5, 0.5, 0.25, 0.375])


def test_shrunk_passes_answer_for_large_boxes_only():
    """At a limit of 1 all later passes shrink: a small box has its two votes left, turned apart."""
    rule = Multiscale(max_pixels=100 * 100, keep_lone=False)
    small = detect_multiscale(Witness(29), picture_of(100, 100), Settings(cap=750), rule)
    large = detect_multiscale(Witness(30), picture_of(100, 100), Settings(cap=750), rule)
    narrow = detect_multiscale(Witness(15, 30), picture_of(100, 100), Settings(cap=750), rule)
    assert len(small) == 0
    assert len(large) == 1
    assert len(narrow) == 1


def test_enlarged_passes_answer_for_small_boxes_only():
    """200 pixels wide, limit 1.5: the box has votes of the base, shrunk and enlarged passes."""
    rule = Multiscale(max_pixels=450 * 450, keep_lone=False)

    class Sized(Witness):
        def detect(self, picture, settings):
            found = super().detect(picture, settings)
            is_enlarged = settings.scale > 1
            return found if is_enlarged or len(self.asked) == 1 else Faces.none()

    small = detect_multiscale(Sized(98), picture_of(300, 300), Settings(cap=750), rule)
    large = detect_multiscale(Sized(99), picture_of(300, 300), Settings(cap=750), rule)
    assert len(small) == 1
    assert len(large) == 0
