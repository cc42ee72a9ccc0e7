"""The cascade: the same boxes as the published rules in plain loops, whatever the batch."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import slimface
from slimface.data.drawn import Drawn, draw
from slimface.deploy.cascade import Cascade, Networks, suppress_by_smaller
from slimface.deploy.crops import Windowed
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import RawFaces, Settings
from slimface.errors import CheckpointError, UsageError
from slimface.model import mtcnn
from slimface.model.build import build
from slimface.model.predictor import pipeline
from tests.deploy import plain_cascade


@pytest.fixture(scope="module")
def lively():
    """Networks nobody has trained, of which each says yes to about half of what it sees."""
    detector = build(mtcnn.facenet(), seed=3).eval()
    picture = torch.from_numpy(noise(300, 300)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        for net in (detector.pnet, detector.rnet, detector.onet):
            side = net.side_px
            crops = functional.unfold(picture, side, stride=12)[0].T.reshape(-1, 3, side, side)
            logits = net((crops - 127.5) / 128).logits
            gain = 2 / logits.std()
            net.scores.weight *= gain
            net.scores.bias *= gain
            net.scores.bias[1] += 1 - gain * logits.mean()
            net.offsets.weight *= 2
    return detector


def plainly(detector):
    """The networks of a detector as the plain loops want them."""

    def net(stage):
        def answer(image):
            with torch.inference_mode():
                raw = stage(image)
            if stage is detector.pnet:
                rows, columns = (detector.spec.cells_along(side) for side in image.shape[2:])
                return (
                    raw.logits.sigmoid().view(rows, columns),
                    raw.offsets[0].T.view(4, rows, columns),
                    None,
                )
            points = None if raw.landmarks is None else raw.landmarks[0, 0].T.flatten()
            return raw.logits.sigmoid()[0, 0], raw.offsets[0, 0], points

        return answer

    return [net(stage) for stage in (detector.pnet, detector.rnet, detector.onet)]


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def assert_same(faces, plain):
    rows, points = plain
    assert len(faces) == len(rows)
    np.testing.assert_allclose(faces.boxes, rows[:, :4], atol=0.01)
    np.testing.assert_allclose(faces.scores, rows[:, 4], atol=1e-5)
    np.testing.assert_allclose(faces.landmarks, points, atol=0.01)


@pytest.mark.parametrize(("height", "width"), [(70, 91), (64, 40), (21, 120)])
def test_it_finds_what_the_published_rules_find(lively, height, width):
    picture = noise(height, width)
    expected = plain_cascade.detect(picture, plainly(lively))
    assert len(expected[0]) > 0
    assert_same(pipeline(lively).detect(picture), expected)


@pytest.mark.data
def test_published_weights_find_on_drawn_and_real_pictures_what_the_loops_find(
    weights_root, wider_root, monkeypatch
):
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    nets = plain_cascade.published_nets(weights_root / "mtcnn")
    paths = sorted((wider_root / "WIDER_val/images").glob("*/*.jpg"))
    real = cv2.resize(read_picture(paths[8]), (400, 267), interpolation=cv2.INTER_AREA)
    cascade = slimface.load("mtcnn")
    for picture in (real, draw(Drawn(count=1, height_px=180, width_px=220), 0)[0]):
        assert_same(cascade.detect(picture), plain_cascade.detect(picture, nets))
    assert len(cascade.detect(real)) >= 3


def test_batches_of_pictures_of_any_size_change_nothing(lively):
    pictures = [noise(60, 80, 1), noise(41, 33, 2), noise(8, 8, 3), noise(50, 60, 4)]
    alone = [pipeline(lively).detect(picture) for picture in pictures]
    small = pipeline(lively)
    small.batch = 7
    for one, other in zip(alone, small.detect_batch(pictures), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
    assert len(alone[2]) == 0
    assert small.detect_batch([]) == []


def test_bands_of_the_pyramid_change_nothing(lively, monkeypatch):
    picture = noise(90, 70)
    whole = pipeline(lively).detect(picture)
    monkeypatch.setattr("slimface.deploy.cascade.BAND_PIXELS", 200)
    np.testing.assert_allclose(pipeline(lively).detect(picture).boxes, whole.boxes, atol=0.01)


class Everywhere:
    """Networks that see a face in every crop, and note what they are asked."""

    def __init__(self, spec):
        self.calls = []
        self.spec = spec
        self.nets = Networks(self.first, self.second, self.third)

    def first(self, images):
        self.calls.append(images.shape)
        cells = self.spec.cells_along(images.shape[2]) * self.spec.cells_along(images.shape[3])
        return RawFaces(np.full((1, cells), 3, np.float32), np.zeros((1, cells, 4), np.float32))

    def second(self, images):
        self.calls.append(images.shape)
        n = len(images)
        return RawFaces(np.full((n, 1), 3, np.float32), np.zeros((n, 1, 4), np.float32))

    def third(self, images):
        points = np.full((len(images), 1, 5, 2), 0.5, np.float32)
        raw = self.second(images)
        return RawFaces(raw.logits, raw.offsets, points)


def test_a_picture_full_of_faces_is_bounded_by_the_spec():
    spec = mtcnn.facenet().model_copy(update={"proposals": 100})
    nets = Everywhere(spec)
    cascade = Cascade(spec, nets.nets, batch=32)
    faces = cascade.detect(np.zeros((600, 800, 3), np.uint8))
    assert 0 < len(faces) <= 100
    crops = [shape for shape in nets.calls if shape[2:] in ((24, 24), (48, 48))]
    assert max(shape[0] for shape in crops) <= 32
    assert max(shape[2] * shape[3] for shape in nets.calls) <= 2**16 + 12 * 800


def test_settings_ask_for_less(lively):
    picture = noise(70, 91)
    cascade = pipeline(lively)
    usual = cascade.detect(picture)
    more = cascade.detect(picture, Settings(score_floor=0.05))
    assert len(more) >= len(usual) > 1
    assert len(cascade.detect(picture, Settings(cap=1))) == 1
    assert len(cascade.detect(picture, Settings(nms_overlap=0.01))) <= len(usual)
    half = cascade.detect(np.kron(picture, np.ones((2, 2, 1), np.uint8)), Settings(scale=0.5))
    np.testing.assert_allclose(half.boxes, 2 * usual.boxes, atol=0.05)


def test_the_zero_padded_rules_see_black_beyond_the_border():
    spec = mtcnn.floor().model_copy(update={"min_face_px": 12})
    nets = Everywhere(spec)
    faces = Cascade(spec, nets.nets).detect(np.full((30, 30, 3), 255, np.uint8))
    # Every cell becomes a square of its 12 pixels and one; no offset moves it.
    assert len(faces) > 0
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    np.testing.assert_array_equal(sides[:, 0], sides[:, 1])
    np.testing.assert_allclose(faces.landmarks.mean(1), faces.boxes.reshape(-1, 2, 2).mean(1))
    view = Windowed(np.full((4, 4, 3), 255, np.uint8), "linear")
    crop = view.crops(np.array([[-2, 0, 2, 4]]), 4)[0, 0]
    assert crop.tolist() == [[0, 0, 255, 255]] * 4


def test_networks_that_do_not_belong_together_are_refused(lively):
    spec = lively.spec
    nets = Everywhere(spec)

    def short(images):
        return RawFaces(np.zeros((1, 1), np.float32), np.zeros((1, 1, 4), np.float32))

    def infinite(images):
        raw = nets.second(images)
        return RawFaces(raw.logits * np.nan, raw.offsets)

    picture = noise(60, 60)
    with pytest.raises(CheckpointError, match="pnet answers logits"):
        Cascade(spec, Networks(short, nets.second, nets.third)).detect(picture)
    with pytest.raises(CheckpointError, match="24 px net answers with values"):
        Cascade(spec, Networks(nets.first, infinite, nets.third)).detect(picture)
    with pytest.raises(UsageError, match="one pass"):
        nets.nets(picture)
    with pytest.raises(UsageError, match="no one input"):
        Cascade(spec, nets.nets).prepare([picture])
    with pytest.raises(UsageError, match="batch is 0"):
        Cascade(spec, nets.nets, batch=0)
    with pytest.raises(UsageError, match="shape"):
        Cascade(spec, nets.nets).detect(picture[..., 0])


windows = st.tuples(*(st.integers(-9, 30) for _ in range(2)), *(st.integers(1, 40) for _ in "wh"))


@given(st.lists(windows, min_size=1, max_size=4), st.sampled_from([5, 24]))
@settings(max_examples=25, deadline=None)
def test_crops_are_those_of_torch_on_a_padded_picture(chosen, side):
    picture = noise(31, 27)
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in chosen])
    found = Windowed(picture, "area").crops(boxes, side)
    padded = np.pad(picture, ((80, 80), (80, 80), (0, 0))).astype(np.float32)
    for crop, (x1, y1, x2, y2) in zip(found, boxes + 80, strict=True):
        image = torch.from_numpy(padded[y1:y2, x1:x2]).permute(2, 0, 1)[None]
        expected = functional.interpolate(image, size=(side, side), mode="area")[0]
        np.testing.assert_allclose(crop, expected, atol=1e-3)


def test_sums_that_overflow_are_right_all_the_same():
    white = np.full((3200, 4200, 3), 255, np.uint8)
    view = Windowed(white, "area")
    assert (view.crops(np.array([[4100, 3100, 4200, 3200]]), 24) == 255).all()
    assert (view.rows(200, 300, 150, 200) == 255).all()


@given(st.lists(windows, max_size=12))
@settings(max_examples=30, deadline=None)
def test_suppression_by_the_smaller_box_is_the_plain_one(chosen):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in chosen], np.float32).reshape(-1, 4)
    found = [(box, -i, i, None) for i, box in enumerate(boxes.tolist())]
    plain = plain_cascade.suppressed(found, 0.7, of_the_smaller=True)
    assert suppress_by_smaller(boxes, overlap=0.7).tolist() == [i for _, _, i, _ in plain]
