import threading

import cv2
import numpy as np
import pytest

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.boxes import overlaps
from slimface.core.spec import Architecture, DetectorSpec, Postprocess, Preprocess
from slimface.deploy.pipeline import DecodedFaces, Pipeline, RawFaces, Settings, logit, sigmoid
from slimface.deploy.preprocess import Normaliser
from slimface.errors import CheckpointError, UsageError

SPEC = DetectorSpec(
    name="bright",
    architecture=Architecture(name="bright"),
    preprocess=Preprocess(mean=(128, 128, 128)),
    anchors=AnchorGrid(
        levels=(AnchorLevel(stride=4, sizes=(8.0,)), AnchorLevel(stride=8, sizes=(16.0,)))
    ),
    postprocess=Postprocess(score_floor=0.5, nms_overlap=0.3, pre_nms=1000, cap=100),
)


def brightness(images: np.ndarray, stride: int) -> np.ndarray:
    """Mean of each cell, shape (b, rows, columns); blind to left and right."""
    height, width = images.shape[2:]
    padding = ((0, 0), (0, 0), (0, -height % stride), (0, -width % stride))
    padded = np.pad(images, padding, constant_values=-128)
    rows, columns = padded.shape[2] // stride, padded.shape[3] // stride
    cells = padded.reshape(len(images), 3, rows, stride, columns, stride)
    return cells.mean(axis=(1, 3, 5))


def bright(images: np.ndarray) -> RawFaces:
    logits = [brightness(images, s).reshape(len(images), -1) for s in (4, 8)]
    joined = np.concatenate(logits, axis=1).astype(np.float32) / 8
    return RawFaces(joined, np.zeros((*joined.shape, 4), dtype=np.float32))


def decoding(images: np.ndarray) -> DecodedFaces:
    raw = bright(images)
    boxes = SPEC.codec.decode(raw.offsets[0], SPEC.anchors.anchors(*images.shape[2:]))
    return DecodedFaces(sigmoid(raw.logits), boxes[None])


def scene(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    picture = random.integers(0, 90, size=(height, width, 3), dtype=np.uint8)
    for x, y in random.integers(0, 10, size=(4, 2)) * 8:
        picture[y : y + 12, x : x + 12] = random.integers(180, 255)
    return picture


def plain_detect(network, picture, spec, *, floor, overlap):
    """The same in the plainest words: scores of all, boxes of all, one face at a time."""
    images = picture.transpose(2, 0, 1)[None].astype(np.float32) - 128
    raw = network(images)
    scores = 1 / (1 + np.exp(-raw.logits[0].astype(np.float64)))
    boxes = spec.codec.decode(raw.offsets[0], spec.anchors.anchors(*images.shape[2:]))
    kept = []
    for i in np.argsort(-raw.logits[0], kind="stable"):
        near = overlaps(boxes[[i]], boxes[kept])[0] if kept else np.zeros(0)
        if scores[i] >= floor and not (near > overlap).any():
            kept.append(i)
    return boxes[kept], scores[kept]


@pytest.mark.parametrize("seed", range(5))
def test_detection_equals_the_plain_way(seed):
    picture = scene(seed=seed)
    faces = Pipeline(SPEC, bright).detect(picture)
    boxes, scores = plain_detect(bright, picture, SPEC, floor=0.5, overlap=0.3)
    assert len(faces) > 0
    np.testing.assert_allclose(faces.boxes, boxes, atol=1e-4)
    np.testing.assert_allclose(faces.scores, scores, rtol=1e-5)


def test_faces_come_best_first_and_capped():
    everything = Pipeline(SPEC, bright).detect(scene(), Settings(score_floor=0.0))
    assert (np.diff(everything.scores) <= 0).all()
    few = Pipeline(SPEC, bright).detect(scene(), Settings(score_floor=0.0, cap=3))
    np.testing.assert_array_equal(few.boxes, everything.boxes[:3])


def test_pre_nms_lets_only_the_best_in():
    few = Pipeline(SPEC, bright).detect(scene(), Settings(score_floor=0.0, pre_nms=1))
    best = Pipeline(SPEC, bright).detect(scene(), Settings(score_floor=0.0))
    assert few.boxes.tolist() == best.boxes[:1].tolist()


def test_a_decoding_network_finds_the_same():
    inside, outside = (Pipeline(SPEC, network).detect(scene()) for network in (decoding, bright))
    np.testing.assert_allclose(inside.boxes, outside.boxes, atol=1e-4)
    np.testing.assert_allclose(inside.scores, outside.scores, atol=1e-6)


def test_a_mirrored_picture_has_mirrored_faces():
    picture = scene()
    faces = Pipeline(SPEC, bright).detect(picture)
    mirrored = Pipeline(SPEC, bright).detect(np.ascontiguousarray(picture[:, ::-1]))

    def in_order(boxes):
        return boxes[np.lexsort(boxes.T)]

    np.testing.assert_allclose(
        in_order(mirrored.boxes), in_order(faces.mirrored(picture.shape[1]).boxes), atol=1e-4
    )


def test_scale_and_longest_px_are_two_words_for_one_thing():
    pipeline = Pipeline(SPEC, bright)
    by_scale = pipeline.detect(scene(), Settings(scale=0.5))
    by_length = pipeline.detect(scene(), Settings(longest_px=64))
    np.testing.assert_array_equal(by_scale.boxes, by_length.boxes)


def test_boxes_of_a_resized_picture_are_in_its_own_pixels():
    picture = scene(97, 131)
    resized = cv2.resize(picture, (66, 49), interpolation=cv2.INTER_LINEAR)
    ours = Pipeline(SPEC, bright).detect(picture, Settings(scale=0.504))
    theirs = Pipeline(SPEC, bright).detect(resized)
    assert len(ours) > 0
    # Each side has its own factor, since both were rounded to whole pixels.
    expected = theirs.moved(scale=(131 / 66, 97 / 49))
    np.testing.assert_allclose(ours.boxes, expected.boxes, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 5), (9, 7)])
def test_pictures_smaller_than_a_stride_work(height, width):
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    pipeline = Pipeline(SPEC, bright)
    assert len(pipeline.detect(picture, Settings(score_floor=0.0))) >= 1
    assert len(pipeline.detect(picture, Settings(score_floor=0.0, scale=0.01))) >= 1


def test_no_face_is_no_error():
    assert len(Pipeline(SPEC, bright).detect(np.zeros((50, 60, 3), np.uint8))) == 0


def test_a_batch_finds_what_single_pictures_do():
    pictures = [scene(seed=i) for i in range(3)]
    pipeline = Pipeline(SPEC, bright)
    for faces, picture in zip(pipeline.detect_batch(pictures), pictures, strict=True):
        np.testing.assert_array_equal(faces.boxes, pipeline.detect(picture).boxes)
    assert pipeline.detect_batch([]) == []


def test_a_batch_of_two_sizes_is_refused():
    with pytest.raises(UsageError, match="2 sizes"):
        Pipeline(SPEC, bright).detect_batch([scene(40, 40), scene(40, 44)])


def test_a_path_is_read(tmp_path):
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene()[..., ::-1])
    faces, timing = Pipeline(SPEC, bright).detect_timed(path)
    np.testing.assert_array_equal(faces.boxes, Pipeline(SPEC, bright).detect(scene()).boxes)
    assert timing.read_ms > 0
    parts = timing.read_ms + timing.resize_ms + timing.network_ms + timing.decode_ms
    assert timing.total_ms == pytest.approx(parts)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
        None,
    ],
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(UsageError, match="picture"):
        Pipeline(SPEC, bright).detect(picture)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.0},
        {"scale": 1.0, "longest_px": 5},
        {"longest_px": 0},
        {"nms_overlap": 0.0},
        {"nms_overlap": 1.1},
        {"score_floor": -0.1},
        {"score_floor": 1.1},
        {"cap": 0},
        {"pre_nms": 0},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=list(wrong)[-1]):
        Settings(**wrong)


def test_a_network_that_answers_nonsense_is_an_error():
    def not_a_number(images):
        raw = bright(images)
        raw.logits[0, 3] = np.nan
        return raw

    def infinite(images):
        raw = bright(images)
        raw.offsets[:] = np.inf
        return raw

    def too_few(images):
        raw = bright(images)
        return RawFaces(raw.logits[:, :-1], raw.offsets[:, :-1])

    for network in (not_a_number, infinite):
        with pytest.raises(CheckpointError, match="no numbers"):
            Pipeline(SPEC, network).detect(scene())
    with pytest.raises(CheckpointError, match=r"959 anchors.* 960"):
        Pipeline(SPEC, too_few).detect(scene())


def test_landmarks_come_back_in_pixels_of_the_picture():
    def with_points(images):
        raw = bright(images)
        # Every point at the centre of its anchor.
        return RawFaces(raw.logits, raw.offsets, np.zeros((*raw.logits.shape, 5, 2), np.float32))

    faces = Pipeline(SPEC, with_points).detect(scene(), Settings(scale=0.5))
    assert faces.landmarks is not None
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    np.testing.assert_allclose(faces.landmarks, np.repeat(centres[:, None], 5, axis=1), atol=1e-4)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("multiple_of", [1, 32])
def test_preprocessing_is_pixel_minus_mean_times_scale(colour, multiple_of):
    plan = Preprocess(mean=(123, 117, 104), scale=0.5, colour=colour, multiple_of=multiple_of)
    picture = scene(50, 70)
    images = Normaliser(plan)([picture, picture], 50, 70)
    expected = (picture.astype(np.float32) - np.array(plan.mean, np.float32)) * 0.5
    expected = expected if colour == "rgb" else expected[..., ::-1]
    np.testing.assert_array_equal(images[1, :, :50, :70], expected.transpose(2, 0, 1))
    assert images.shape[2] % multiple_of == images.shape[3] % multiple_of == 0
    assert not images[:, :, 50:].any()
    assert not images[:, :, :, 70:].any()


def test_padding_is_clean_after_a_larger_picture():
    normalise = Normaliser(Preprocess(multiple_of=32))
    normalise([np.full((64, 64, 3), 255, np.uint8)], 64, 64)
    assert not normalise([np.full((40, 40, 3), 9, np.uint8)], 40, 40)[:, :, 40:].any()


def test_threads_do_not_share_buffers():
    pipeline = Pipeline(SPEC, bright)
    pictures = [scene(seed=i) for i in range(4)]
    expected = [pipeline.detect(picture).boxes for picture in pictures]
    wrong = []

    def work(i: int) -> None:
        for _ in range(30):
            if not np.array_equal(pipeline.detect(pictures[i]).boxes, expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_score_floor_is_the_same_in_logits():
    scores = np.array([0.05, 0.3, 0.5, 0.97], dtype=np.float32)
    logits = np.array([logit(float(score)) for score in scores], dtype=np.float32)
    np.testing.assert_allclose(sigmoid(logits), scores, rtol=1e-6)
    assert (logit(0.0), logit(1.0)) == (-np.inf, np.inf)


def test_scores_of_extreme_logits_are_zero_and_one():
    assert sigmoid(np.array([-1e4, 1e4], dtype=np.float32)).tolist() == pytest.approx([0, 1])


def test_a_bare_network_has_no_fingerprint():
    with pytest.raises(UsageError, match="no fingerprint"):
        Pipeline(SPEC, bright).fingerprint()
    assert Pipeline(SPEC, bright, identity=lambda: "abc").fingerprint() == "abc"
