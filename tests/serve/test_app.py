import json
import threading
import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from fastapi.testclient import TestClient

from slimface.deploy.pipeline import Pipeline
from slimface.deploy.runtimes import open_exported
from slimface.serve.app import create_app
from slimface.serve.limits import Limits


def encoded(count: int = 1, suffix: str = ".png", size: tuple[int, int] = (48, 64)) -> bytes:
    picture = np.zeros((*size, 3), dtype=np.uint8)
    for i in range(count):
        picture[16:20, 16 * i : 16 * i + 4] = 255
    return cv2.imencode(suffix, picture)[1].tobytes()


@pytest.fixture
def client(tiny_onnx):
    limits = Limits(bytes=20_000, pixels=100_000, pictures=3)
    with TestClient(create_app(lambda: open_exported(tiny_onnx), limits=limits)) as client:
        yield client


def test_a_picture_in_faces_out_as_detect_finds_them(client, tiny_onnx):
    answer = client.post("/detect", content=encoded(2)).json()
    expected = open_exported(tiny_onnx).detect(cv2.imdecode(np.frombuffer(encoded(2), "u1"), 1))
    (picture,) = answer["pictures"]
    assert picture["faces"] == expected.as_rows()
    assert (picture["height"], picture["width"]) == (48, 64)
    assert set(picture["ms"]) == {"read", "resize", "network", "decode", "total"}
    assert (answer["model"], answer["runtime"], answer["failed"]) == ("tiny", "onnxruntime", [])


def test_a_picture_without_a_face_is_no_error(client):
    answer = client.post("/detect", content=encoded(0))
    assert (answer.status_code, answer.json()["pictures"][0]["faces"]) == (200, [])


def test_options_count(client):
    faces = client.post("/detect", params={"cap": 1}, content=encoded(3)).json()["pictures"][0]
    assert len(faces["faces"]) == 1


def test_of_several_pictures_the_broken_one_is_named_and_the_others_are_done(client):
    files = [
        ("pictures", ("a.png", encoded(1))),
        ("pictures", ("cut.jpg", encoded(1, ".jpg")[:-30])),
        ("pictures", ("c.webp", encoded(2, ".webp"))),
    ]
    answer = client.post("/detect/batch", files=files).json()
    assert [(p["name"], len(p["faces"])) for p in answer["pictures"]] == [
        ("a.png", 1),
        ("c.webp", 2),
    ]
    assert [f["name"] for f in answer["failed"]] == ["cut.jpg"]
    assert "cut off" in answer["failed"][0]["error"]


@pytest.mark.parametrize(
    ("what", "content", "kind", "status", "word"),
    [
        ("no picture", b"hello", "image/png", 422, "not a JPEG"),
        ("nothing", b"", "image/png", 422, "not a JPEG"),
        ("cut off", encoded()[:-20], "image/png", 422, "cut off"),
        ("too many pixels", encoded(size=(400, 400)), "image/png", 422, "100,000"),
        ("too many bytes", bytes(20_001), "image/png", 413, "20,000 bytes"),
        ("a form", b"a=b", "application/x-www-form-urlencoded", 415, "/detect/batch"),
    ],
)
def test_bad_input_is_answered_with_the_rule_and_a_remedy(
    client, what, content, kind, status, word
):
    answer = client.post("/detect", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, what
    assert word in answer.json()["error"] + answer.json()["remedy"]
    assert answer.json()["remedy"]


def test_a_length_that_was_not_announced_is_counted_all_the_same(client):
    answer = client.post("/detect", content=(bytes(5_000) for _ in range(9)))
    assert answer.status_code == 413


def test_too_many_pictures_are_refused(client):
    files = [("pictures", (f"{i}.png", encoded())) for i in range(4)]
    assert client.post("/detect/batch", files=files).status_code == 413


def test_an_option_out_of_range_is_refused(client):
    assert client.post("/detect", params={"score": 2}, content=encoded()).status_code == 422


def test_health_says_which_model(client, tiny_onnx):
    health = client.get("/health").json()
    assert (health["status"], health["model"]) == ("ok", "tiny")
    assert health["fingerprint"] == open_exported(tiny_onnx).fingerprint()


def test_metrics_count_what_was_done(client):
    client.post("/detect", content=encoded(2))
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert "slimface_pictures_total 1.0" in text
    assert "slimface_faces_total 2.0" in text
    assert 'slimface_requests_total{path="/detect",status="200"} 1.0' in text
    assert 'slimface_requests_total{path="unknown",status="404"} 1.0' in text


def test_the_interface_describes_itself(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/detect", "/detect/batch", "/health", "/metrics"}
    assert "image/jpeg" in json.dumps(paths["/detect"]["post"]["requestBody"])


class Slow:
    """The network of a pipeline, held until it is let go."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.network = pipeline.network
        self.gate = threading.Event()

    def __call__(self, images):
        self.gate.wait(10)
        return self.network(images)


def slow_app(path, **limits):
    opened = open_exported(path)
    slow = Slow(opened)
    pipeline = Pipeline(opened.spec, slow, identity=opened.fingerprint)
    return create_app(lambda: pipeline, limits=Limits(**limits)), slow.gate


def test_when_the_line_is_full_the_next_is_told_to_come_back(tiny_onnx):
    app, gate = slow_app(tiny_onnx, waiting=1)
    with TestClient(app) as client:
        codes: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: codes.append(client.post("/detect", content=encoded()).status_code)
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: "slimface_inside 2.0" in client.get("/metrics").text)
        answer = client.post("/detect", content=encoded())
        gate.set()
        for thread in threads:
            thread.join()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert codes == [200, 200]
        assert client.post("/detect", content=encoded()).status_code == 200


def test_a_picture_that_takes_too_long_is_given_up(tiny_onnx):
    app, gate = slow_app(tiny_onnx, seconds=0.05)
    with TestClient(app) as client:
        answer = client.post("/detect", content=encoded())
        gate.set()
    assert answer.status_code == 503
    assert "0.05 seconds" in answer.json()["error"]


def until(condition, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_eight_clients_at_once_lose_no_request(tiny_onnx):
    app = create_app(lambda: open_exported(tiny_onnx, threads=1), workers=2)
    found: list[int] = []

    def ask(count: int) -> None:
        for _ in range(10):
            answer = client.post("/detect", content=encoded(count % 4))
            found.append(len(answer.json()["pictures"][0]["faces"]) - count % 4)

    with TestClient(app) as client:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [0] * 80


def test_a_request_may_be_as_large_as_all_its_pictures():
    sizes = [Limits(pictures=n).request_bytes for n in (1, 2, 3)]
    assert {b - a for a, b in pairwise(sizes)} == {Limits().bytes}
