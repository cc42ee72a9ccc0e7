import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.cli.app import main
from slimface.deploy.media import read_picture, sources
from slimface.evaluate.predictions import read_predictions
from tests.conftest import INTERRUPTIBLE


@pytest.fixture
def run(monkeypatch, capsys, tiny_onnx):
    """Run ``slimface detect`` with the tiny model; give exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        command = ["slimface", "detect", *map(str, words)]
        if "--model" not in words:
            command += ["--model", str(tiny_onnx)]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        out, err = capsys.readouterr()
        # Long messages are wrapped to the width of the terminal.
        return code, out, " ".join(err.split())

    return call


def picture_with(count: int) -> np.ndarray:
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    for i in range(count):
        picture[16:20, 16 * i : 16 * i + 4] = 255
    return picture


@pytest.fixture
def album(tmp_path) -> Path:
    folder = tmp_path / "album"
    for name, count in (("day/a.png", 1), ("day/b.jpg", 0), ("night/c.webp", 3)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture_with(count))
    return folder


def test_the_table_counts_faces_and_splits_the_time(run, album):
    code, out, _ = run(album)
    assert code == 0
    for word in ("day/a.png", "read", "resize", "network", "decode", "3 pictures"):
        assert word in out


def test_json_goes_to_stdout_alone(run, album):
    code, out, _ = run(album, "--json")
    content = json.loads(out)
    assert code == 0
    assert [len(row["faces"]) for row in content["pictures"]] == [1, 0, 3]
    assert content["pictures"][0]["faces"][0]["box"] == [-2, 14, 6, 22]
    assert set(content["pictures"][0]["ms"]) == {"read", "resize", "network", "decode", "total"}
    assert (content["model"], content["runtime"]) == ("tiny", "onnxruntime")
    assert content["failed"] == []


def test_pictures_with_boxes_are_saved_in_their_folders(run, album, tmp_path):
    code, _, _ = run(album, "--save", tmp_path / "drawn")
    assert code == 0
    saved = sorted(
        path.relative_to(tmp_path / "drawn").as_posix()
        for path in (tmp_path / "drawn").rglob("*")
        if path.is_file()
    )
    assert saved == ["day/a.png", "day/b.jpg", "night/c.webp"]
    before, after = (read_picture(root / "day/a.png") for root in (album, tmp_path / "drawn"))
    assert (before != after).any()


def test_the_originals_are_never_overwritten(run, album):
    before = (album / "day/a.png").read_bytes()
    code, _, err = run(album, "--save", album)
    assert code == 2
    assert "would overwrite" in err
    assert (album / "day/a.png").read_bytes() == before


def test_broken_pictures_are_named_at_the_end_and_the_rest_is_done(run, album, tmp_path):
    (album / "day" / "aa.jpg").write_text("not a picture")
    (album / "night" / "b.jpg").write_bytes((album / "day/b.jpg").read_bytes()[:-20])
    out_file = tmp_path / "out.json"
    code, out, err = run(album, "--out", out_file, "--json")
    assert code == 1
    assert "2 of 5 pictures could not be read" in err
    assert "aa.jpg" in err
    assert "cut off" in err
    assert len(json.loads(out_file.read_text())["pictures"]) == 3
    assert [row["name"] for row in json.loads(out)["failed"]] == ["day/aa.jpg", "night/b.jpg"]


def test_wider_text_is_what_the_evaluation_reads(run, album, tmp_path):
    code, _, _ = run(album, "--format", "wider", "--out", tmp_path / "predictions")
    assert code == 0
    names = ["day/a.png", "day/b.jpg", "night/c.webp"]
    detections = read_predictions(tmp_path / "predictions", names)[0]
    assert [len(faces) for faces in detections] == [1, 0, 3]
    assert detections[0].boxes.tolist() == [[-2, 14, 6, 22]]


def test_coco_results_are_written(run, album, tmp_path):
    run(album, "--format", "coco", "--out", tmp_path / "coco.json")
    rows = json.loads((tmp_path / "coco.json").read_text())
    assert [row["image_id"] for row in rows] == [1, 3, 3, 3]
    assert rows[0]["bbox"] == [-2, 14, 8, 8]


def test_two_pictures_of_one_stem_have_no_wider_text(run, album, tmp_path):
    cv2.imwrite(str(album / "day" / "a.jpg"), picture_with(1))
    code, _, err = run(album, "--format", "wider", "--out", tmp_path / "p")
    assert code == 2
    assert "would both be written to day/a.txt" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "xml", "--out", "x"], "--format xml"),
        (["--format", "coco"], "--out"),
        (["--longest", "64", "--scale", "2"], "exclude each other"),
        (["--scale", "0"], "scale is 0"),
        (["--score", "1.5"], "--score"),
        (["--cap", "0"], "--cap"),
        (["--nonsense"], "--nonsense"),
        (["--model", "eresfdd"], "did you mean eresfd"),
    ],
)
def test_wrong_usage_ends_with_2(run, album, options, words):
    code, out, err = run(album, *options)
    assert code == 2
    assert words in err
    assert out == ""


@pytest.mark.parametrize("asked", ["nowhere.jpg", "*.nothing", "empty"])
def test_nothing_to_look_at_ends_with_1(run, tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert run(asked)[0] == 1


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_a_pickled_model_is_refused(run, album, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    code, _, err = run(album, "--model", tmp_path / name)
    assert code == 1
    assert "is a pickled file" in err


def test_an_unwritable_output_is_said_before_the_work(run, album, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run(album, "--out", tmp_path / "file" / "x.json")
    assert code == 1
    assert out == ""
    assert "nothing can be written to" in err


def make_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for i in range(frames):
        writer.write(picture_with(1 + i % 2))
    writer.release()
    return path


def test_a_video_is_drawn_into_a_video(run, tmp_path):
    video = make_video(tmp_path / "clip.avi", 12)
    code, out, _ = run(video, "--save", tmp_path / "drawn", "--json")
    assert code == 0
    assert [len(row["faces"]) for row in json.loads(out)["pictures"]][:2] == [1, 2]
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["clip.mp4"]
    assert len(list(sources([tmp_path / "drawn" / "clip.mp4"]))) == 12


def test_a_video_that_ends_early_is_done_as_far_as_it_goes(run, tmp_path):
    video = make_video(tmp_path / "clip.avi", 40)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 2 // 3])
    code, out, err = run(video, "--save", tmp_path / "drawn", "--json")
    done = len(json.loads(out)["pictures"])
    assert code == 1
    assert f"ends after {done} of the 40 frames" in err
    assert len(list(sources([tmp_path / "drawn" / "clip.mp4"]))) == done


def test_max_frames_stops_a_video(run, tmp_path):
    video = make_video(tmp_path / "clip.avi", 12)
    assert len(json.loads(run(video, "--max-frames", 5, "--json")[1])["pictures"]) == 5


def test_ctrl_c_keeps_what_was_found(tmp_path, tiny_onnx):
    many = tmp_path / "many"
    many.mkdir()
    content = cv2.imencode(".png", picture_with(2))[1].tobytes()
    for i in range(1500):
        (many / f"{i:05d}.png").write_bytes(content)
    out, drawn = tmp_path / "out.json", tmp_path / "drawn"
    command = [sys.executable, "-c", INTERRUPTIBLE, "detect", many, "--model", tiny_onnx]
    process = subprocess.Popen(
        [str(word) for word in [*command, "--out", out, "--save", drawn]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (drawn.is_dir() and len(list(drawn.iterdir())) > 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = json.loads(out.read_text())["pictures"]
    assert 5 <= len(done) < 1500
    assert f"{len(done)} pictures were done" in err.decode()
    # The picture in hand may have been drawn already; nothing half-written stays.
    left = {path.name for path in drawn.iterdir()}
    assert left >= {row["name"] for row in done}
    assert not any(name.startswith(".") for name in left)


def test_a_model_without_landmarks_cannot_align(run, album, tmp_path):
    code, _, err = run(album, "--align", 112, "--save", tmp_path / "crops")
    assert code == 2
    assert "without landmarks" in err
    assert not list((tmp_path / "crops").rglob("*.png"))


def test_aligned_crops_need_a_place(run, album):
    code, _, err = run(album, "--align", 112)
    assert code == 2
    assert "--save" in err


def test_faces_are_written_as_labels(run, album, tmp_path):
    code, _, _ = run(album, "--format", "labels", "--out", tmp_path / "label.txt")
    assert code == 0
    lines = (tmp_path / "label.txt").read_text().splitlines()
    assert lines[:3:2] == ["# day/a.png", "# day/b.jpg"]
    assert lines[1].startswith("-2 14 8 8 -1 -1 -1")
    assert len(lines[1].split()) == 20


@pytest.fixture
def with_landmarks(tmp_path):
    """A detector with landmarks, as a checkpoint; its weights are random and its floor is 0."""
    pytest.importorskip("torch")
    from slimface.model.build import build
    from slimface.model.checkpoint import save
    from slimface.model.retinaface import retinaface

    path = tmp_path / "small.safetensors"
    save(build(retinaface(width=4), seed=0), path)
    return path


def test_aligned_crops_and_key_points_are_written(run, album, tmp_path, with_landmarks):
    words = ["--model", with_landmarks, "--score", 0, "--cap", 2]
    code, _, err = run(album, *words, "--align", 32, "--save", tmp_path / "crops")
    assert code == 0, err
    crops = sorted((tmp_path / "crops" / "day").glob("a.png-*.png"))
    assert [crop.name for crop in crops] == ["a.png-000.png", "a.png-001.png"]
    assert read_picture(crops[0]).shape == (32, 32, 3)
    code, _, err = run(album, *words, "--format", "coco", "--out", tmp_path / "coco.json")
    assert code == 0, err
    rows = json.loads((tmp_path / "coco.json").read_text())
    assert all(len(row["keypoints"]) == 15 for row in rows)
    assert rows[0]["keypoints"][2::3] == [2] * 5


@pytest.mark.parametrize("option", ["--min-face", "--proposals"])
def test_limits_of_cascades_are_refused_for_other_models(run, album, option):
    code, _, err = run(album, option, 40)
    assert code == 2
    assert f"{option} is for cascades" in err
