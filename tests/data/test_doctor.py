"""A folder with one of everything that can be wrong, and a repaired copy that can be read."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.data.annotations import parse_txt
from slimface.data.doctor import RULES, Examination, examine, write_list, write_repaired
from slimface.data.landmarks import parse_labels
from slimface.errors import MissingError, UsageError

MARKS = "0 0 0 0 0 0"
POINTS = "12 14 0 20 14 0 16 18 0 13 22 0 19 22 0 0.9"
TURNED = b"\xff\xe1" + struct.pack(">H", 34) + b"Exif\0\0MM\0*" + struct.pack(
    ">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0
)  # fmt: skip
"""EXIF data of a camera held upright."""


def picture(path: Path, seed: int, *, grey: bool = False) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels[..., 0] if grey else pixels)
    return path.read_bytes()


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    images = tmp_path / "WIDER_train" / "images" / "0--A"
    for seed, name in enumerate(("sound", "empty", "count")):
        picture(images / f"{name}.jpg", seed)
    picture(images / "grey.jpg", 5, grey=True)
    data = picture(images / "turned.jpg", 6)
    (images / "turned.jpg").write_bytes(data[:2] + TURNED + data[2:])
    (images / "twin.jpg").write_bytes((images / "sound.jpg").read_bytes())
    (images / "half.jpg").write_bytes(data[: len(data) // 2])
    picture(images / "unlisted.jpg", 7)
    lines = [
        "0--A/sound.jpg", "8",
        f"1 2 10 12 {MARKS}",
        f"5 5 0 7 {MARKS}",
        f"70 5 9 9 {MARKS}",
        f"50 5 20 9 {MARKS}",
        f"1 2 10 12 {MARKS}",
        "1 2 3 four 0 0 0 0 0 0",
        "1 2 3",
        f"60 39 2 2 {MARKS}",
        "0--A/empty.jpg", "0", "0 0 0 0 0 0 0 0 0 0",
        "0--A/count.jpg", "9", f"1 2 10 12 {MARKS}",
        "0--A/grey.jpg", "1", f"1 2 10 12 {MARKS}",
        "0--A/turned.jpg", "1", f"1 2 10 12 {MARKS}",
        "0--A/twin.jpg", "1", f"1 2 10 12 {MARKS}",
        "0--A/half.jpg", "1", f"1 2 10 12 {MARKS}",
        "0--A/lost.jpg", "1", f"1 2 10 12 {MARKS}",
        "0--A/sound.jpg", "1", f"1 2 10 12 {MARKS}",
    ]  # fmt: skip
    split = tmp_path / "wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def found(examination: Examination) -> list[tuple[str, str, int]]:
    return sorted(
        (finding.rule, Path(finding.picture).stem, finding.line) for finding in examination.findings
    )


def test_everything_is_found_once_with_its_line(wider: Path) -> None:
    assert found(examine(wider)) == [
        ("beyond", "sound", 6),
        ("count", "count", 15),
        ("duplicate", "twin", 23),
        ("format", "sound", 8),
        ("format", "sound", 9),
        ("grey", "grey", 17),
        ("listed twice", "sound", 32),
        ("missing", "lost", 29),
        ("no faces", "empty", 11),
        ("no size", "sound", 4),
        ("not listed", "unlisted", 0),
        ("outside", "sound", 5),
        ("outside", "sound", 10),
        ("same box", "sound", 7),
        ("turned", "turned", 20),
        ("unreadable", "half", 26),
    ]


def test_several_workers_find_the_same(wider: Path) -> None:
    assert examine(wider, workers=3).findings == examine(wider).findings


def test_a_repaired_copy_can_be_read_and_originals_stay(wider: Path) -> None:
    original = wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    before = original.read_bytes()
    (repaired,) = write_repaired(examine(wider))
    assert original.read_bytes() == before
    entries = {entry.name: entry for entry in parse_txt(repaired)}
    names = ["sound", "empty", "count", "grey", "turned", "twin"]
    assert list(entries) == [f"0--A/{name}.jpg" for name in names]
    assert entries["0--A/sound.jpg"].numbers[:, :4].tolist() == [[1, 2, 10, 12], [50, 5, 10, 9]]
    assert len(entries["0--A/empty.jpg"].numbers) == 0


def test_a_repaired_copy_is_sound(wider: Path) -> None:
    (repaired,) = write_repaired(examine(wider))
    repaired.replace(wider / "wider_face_split" / "wider_face_train_bbx_gt.txt")
    assert examine(wider).broken == 0


def test_labels_with_landmarks_are_examined_and_repaired(tmp_path: Path) -> None:
    images = tmp_path / "val" / "images"
    picture(images / "1.jpg", 1)
    picture(images / "2.jpg", 2)
    far = POINTS.replace("12 14 0", "900 14 0", 1)
    lines = ["# 1.jpg", f"10 10 12 14 {POINTS}", f"10 11 12 14 {far}", "# bad", "1 2 3 4",
             "# 2.jpg", "1 1 5 5 -1 -1"]  # fmt: skip
    (tmp_path / "val" / "label.txt").write_text("\n".join(lines))
    examination = examine(tmp_path)
    assert found(examination) == [
        ("format", "", 4), ("format", "", 5), ("format", "2", 7),
        ("landmarks", "1", 3), ("no faces", "2", 6),
    ]  # fmt: skip
    one, two = parse_labels(write_repaired(examination)[0])
    assert np.isfinite(one.landmarks).all(axis=(1, 2)).tolist() == [True, False]
    assert len(two.boxes) == 0


def test_the_list_of_val_names_each_sound_picture_once_however_often_it_is_made(
    tmp_path: Path,
) -> None:
    picture(tmp_path / "val" / "images" / "a" / "1.jpg", 1)
    (tmp_path / "val" / "label.txt").write_text("# a/1.jpg\n1 1 5 5\n# a/lost.jpg\n")
    examination = examine(tmp_path)
    write_list(examination)
    assert write_list(examination).read_text() == "a/1.jpg\n"
    with pytest.raises(UsageError, match="no annotations of train"):
        write_list(examination, "train")


def test_a_folder_without_annotations_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="holds no annotations"):
        examine(tmp_path)
    with pytest.raises(MissingError, match="no folder"):
        examine(tmp_path / "nowhere")


def test_every_finding_has_a_rule(wider: Path) -> None:
    assert {finding.rule for finding in examine(wider).findings} <= set(RULES)
