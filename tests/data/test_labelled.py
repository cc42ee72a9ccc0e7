from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slimface.core.spec import WholePicture
from slimface.data.drawn_breeds import DrawnBreeds, draw_head, looks_of
from slimface.data.folders import ClassFolders
from slimface.data.labelled import STILL, CropFlip, LabelledBatches
from slimface.data.pets import FOLDER, Pets
from slimface.errors import DataError, MissingError, UsageError
from slimface.model.build import build
from slimface.model.classifier import classifier
from slimface.step import Context
from slimface.train.classes import CrossEntropy, check_classes
from slimface.train.criterion import MultiBox
from slimface.train.schedule import Schedule
from slimface.train.step import Train

RULE = WholePicture(height_px=32, width_px=32)


@pytest.fixture
def breeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DrawnBreeds:
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    return DrawnBreeds(classes=3, train=12, val=2, test=4, size_px=32)


def put(root: Path, *places: str) -> None:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / place), np.zeros((8, 8, 3), dtype=np.uint8))


def test_no_picture_is_in_two_splits(breeds: DrawnBreeds) -> None:
    parts = [breeds.labelled(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [36, 6, 12]
    content = [one.path.read_bytes() for part in parts for one in part]
    assert len(set(content)) == len(content)


def test_drawing_again_draws_the_same() -> None:
    first, second = (draw_head(looks_of(1, 0), np.random.default_rng(5), 48) for _ in range(2))
    assert (first == second).all()
    assert (first != draw_head(looks_of(2, 0), np.random.default_rng(5), 48)).any()


def test_folders_that_nobody_has_split_are_split_by_name(tmp_path: Path) -> None:
    put(tmp_path, *(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(60)))
    parts = {s: ClassFolders(root=str(tmp_path)).labelled(s) for s in ("train", "val", "test")}
    names = [one.name for part in parts.values() for one in part]
    assert sorted(names) == sorted(set(names)) and len(names) == 120
    assert len(parts["train"]) > 80 and len(parts["val"]) and len(parts["test"])
    assert parts["val"].classes == ("cat", "dog")


def test_without_a_test_split_val_is_reported_and_train_divided(tmp_path: Path) -> None:
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(40)))
    put(tmp_path, "val/cat/x.png", "val/dog/y.png")
    source = ClassFolders(root=str(tmp_path))
    assert [one.name for one in source.labelled("test")] == ["cat/x.png", "dog/y.png"]
    train, val = source.labelled("train"), source.labelled("val")
    assert len(train) + len(val) == 80 and not {o.name for o in train} & {o.name for o in val}


@pytest.mark.parametrize(
    ("places", "error", "message"),
    [
        ((), MissingError, "There is no folder"),
        (("cat/1.png",), DataError, "has 1 folders"),
        (("cat/1.png", "dog/readme.txt"), DataError, "holds no picture"),
        (
            ("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/cow/1.png"),
            DataError,
            r"same classes \(cow, dog\)",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    tmp_path: Path, places: tuple[str, ...], error: type[Exception], message: str
) -> None:
    for place in places:
        if place.endswith(".txt"):
            (tmp_path / "x" / place).parent.mkdir(parents=True)
            (tmp_path / "x" / place).write_text("nothing")
        else:
            put(tmp_path / "x", place)
    with pytest.raises(error, match=message):
        ClassFolders(root=str(tmp_path / "x")).labelled("test")


def test_pets_are_read_in_the_layout_of_their_publishers(tmp_path: Path) -> None:
    root = tmp_path / FOLDER
    (root / "annotations").mkdir(parents=True)
    lines = ["# Image CLASS-ID SPECIES BREED ID", "Abyssinian_1 1 1 1", "great_pyrenees_7 2 2 1"]
    for split in ("trainval", "test"):
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    put(root / "images", "Abyssinian_1.jpg", "great_pyrenees_7.jpg")
    pets = Pets(root=str(tmp_path))
    assert pets.labelled("test").classes == ("Abyssinian", "Great Pyrenees")
    assert len(pets.labelled("train")) + len(pets.labelled("val")) == 2
    (root / "images" / "Abyssinian_1.jpg").unlink()
    with pytest.raises(DataError, match=r"images\.tar\.gz"):
        pets.labelled("test")
    (root / "annotations" / "test.txt").write_text("Abyssinian_1 one")
    with pytest.raises(DataError, match=r"test\.txt:1"):
        pets.labelled("test")


def test_pets_out_of_reach_say_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    with pytest.raises(MissingError, match=r"thor\.robots\.ox\.ac\.uk/pets"):
        Pets(root=str(tmp_path)).labelled("train")


def test_batches_depend_on_seed_and_epoch_alone(breeds: DrawnBreeds) -> None:
    pictures = breeds.labelled("train")
    options = {"augment": CropFlip(), "rule": RULE, "batch_size": 4, "seed": 3}
    first, second = (LabelledBatches(pictures, **options, workers=0) for _ in range(2))
    whole = list(first.epoch(1))
    resumed = list(second.epoch(1, skip=2))
    assert len(whole) == len(first) == 9
    for one, other in zip(whole[2:], resumed, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert not torch.equal(whole[0].images, next(iter(first.epoch(2))).images)


def test_still_pictures_are_what_is_classified() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (STILL(picture, RULE, np.random.default_rng(0)) == picture).all()


def test_a_classifier_learns_the_breeds(breeds: DrawnBreeds, tmp_path: Path) -> None:
    spec = classifier("resnet10t", breeds.labelled("train").classes, preprocess=RULE)
    plan = Schedule(epochs=3, batch_size=8, learning_rate=2e-3, decay="none")
    step = Train(schedule=plan, criterion=CrossEntropy(), augment=CropFlip(), holdout=0)
    step(build(spec, seed=0), Context(folder=tmp_path, source=breeds, workers=0))
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    losses = [float(line.partition('"loss": ')[2].partition(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_what_belongs_to_another_task_is_refused(breeds: DrawnBreeds, tmp_path: Path) -> None:
    network = build(classifier("resnet10t", ("a", "b", "c"), preprocess=RULE), seed=0)
    plan = Schedule(epochs=1, batch_size=4)
    context = Context(folder=tmp_path, source=breeds, workers=0)
    with pytest.raises(UsageError, match="cross_entropy"):
        Train(schedule=plan, criterion=MultiBox(), augment=CropFlip())(network, context)
    with pytest.raises(UsageError, match="not the same"):
        Train(schedule=plan, criterion=CrossEntropy(), augment=CropFlip())(network, context)
    with pytest.raises(UsageError, match="classes and no faces"):
        breeds.pictures("train")
    with pytest.raises(UsageError, match="not the same"):
        check_classes(breeds.labelled("train"), network)  # type: ignore[arg-type]
