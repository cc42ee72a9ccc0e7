"""Batches: the same for every number of workers, after every interruption, on every rank."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slimface.core.faces import Faces
from slimface.data.batches import Batch, Batches
from slimface.data.drawn import Drawn, write_drawn
from slimface.data.pictures import Annotated, PictureSet
from slimface.data.transforms import PlainAugment, S3fdAugment
from slimface.errors import DataError, MissingError, UsageError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    spec = Drawn(count=22, height_px=160, width_px=200, seed=3)
    return write_drawn(spec, tmp_path_factory.mktemp("drawn"), "train")


def made(pictures: PictureSet, **changes: object) -> Batches:
    options = {"augment": S3fdAugment(), "size_px": 64, "batch_size": 4, "seed": 5, "workers": 0}
    return Batches(pictures, **(options | changes))  # type: ignore[arg-type]


def assert_equal(first: Iterable[Batch], second: Iterable[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        for faces, others in zip(one.faces, other.faces, strict=True):
            np.testing.assert_array_equal(faces.boxes, others.boxes)
            np.testing.assert_array_equal(faces.landmarks, others.landmarks)


def test_a_batch_is_8_bit_pictures_and_their_faces(drawn: PictureSet) -> None:
    batches = made(drawn)
    seen = list(batches.epoch(0))
    assert len(seen) == len(batches) == 22 // 4
    for batch in seen:
        assert batch.images.shape == (4, 3, 64, 64)
        assert batch.images.dtype == torch.uint8
        assert len(batch) == 4
        assert all(len(faces) for faces in batch.faces)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(drawn: PictureSet, workers: int) -> None:
    here, there = made(drawn), made(drawn, workers=workers)
    try:
        for epoch in (0, 1):
            assert_equal(here.epoch(epoch), there.epoch(epoch))
    finally:
        there.close()


def test_skipping_leaves_out_the_first_batches(drawn: PictureSet) -> None:
    whole = list(made(drawn).epoch(2))
    rest = list(made(drawn).epoch(2, skip=3))
    assert len(rest) == len(whole) - 3
    assert_equal(whole[3:], rest)
    assert list(made(drawn).epoch(2, skip=len(whole))) == []


def test_skipped_pictures_are_not_read(drawn: PictureSet, tmp_path: Path) -> None:
    batches = made(drawn)
    first = next(iter(batches._order))
    broken = [one.path for one in drawn]
    for _, index in first:
        broken[index] = tmp_path / "gone.jpg"
    holes = PictureSet(
        "holes",
        tuple(
            Annotated(one.name, path, one.faces) for one, path in zip(drawn, broken, strict=True)
        ),
    )
    assert len(list(made(holes).epoch(0, skip=1))) == len(batches) - 1
    with pytest.raises(MissingError, match=r"gone\.jpg"):
        next(made(holes).epoch(0))


def test_epochs_and_seeds_differ_and_come_again(drawn: PictureSet) -> None:
    batches = made(drawn)
    first, second = next(batches.epoch(0)), next(batches.epoch(1))
    assert not torch.equal(first.images, second.images)
    assert_equal([first], [next(batches.epoch(0))])
    assert not torch.equal(first.images, next(made(drawn, seed=6).epoch(0)).images)


def test_an_abandoned_epoch_leaves_nothing_behind(drawn: PictureSet) -> None:
    batches = made(drawn, workers=1)
    try:
        next(batches.epoch(0))
        assert_equal(made(drawn).epoch(1), batches.epoch(1))
    finally:
        batches.close()


def test_batches_leave_the_global_generators_alone(drawn: PictureSet) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(made(drawn).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_the_pictures_of_an_epoch(drawn: PictureSet) -> None:
    def keys(batches: Batches) -> Iterator[list[tuple[int, int]]]:
        return iter(batches._order)

    alone = list(keys(made(drawn, batch_size=4)))
    ranks = [list(keys(made(drawn, batch_size=2, rank=r, world_size=2))) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


def test_what_does_not_fill_a_batch_is_kept_on_request(drawn: PictureSet) -> None:
    batches = made(drawn, drop_last=False)
    assert [len(batch) for batch in batches.epoch(0)] == [4, 4, 4, 4, 4, 2]
    assert len(batches) == 6
    with pytest.raises(UsageError, match="drop_last"):
        made(drawn, drop_last=False, world_size=2)


def test_every_picture_is_seen_once_an_epoch(drawn: PictureSet) -> None:
    order = [i for batch in made(drawn, drop_last=False)._order for _, i in batch]
    assert sorted(order) == list(range(len(drawn)))


def one_picture(path: Path, box: tuple[int, int, int, int]) -> PictureSet:
    return PictureSet("one", (Annotated(path.name, path, Faces.annotated([box])),))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: b"", "empty"),
        (lambda data: b"GIF89a" + data, "not a JPEG"),
    ],
    ids=["truncated", "empty", "disguised"],
)
def test_a_broken_picture_is_named(
    drawn: PictureSet,
    tmp_path: Path,
    workers: int,
    content: object,
    rule: str,
) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content(drawn[0].path.read_bytes()))  # type: ignore[operator]
    batches = made(one_picture(path, (10, 10, 50, 50)), batch_size=1, workers=workers)
    try:
        with pytest.raises(DataError, match=rf"(?s)broken\.jpg.*{rule}") as caught:
            list(batches.epoch(0))
        assert "Traceback" not in str(caught.value)
    finally:
        batches.close()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_other_kinds_of_pictures_are_read(tmp_path: Path, suffix: str) -> None:
    picture = np.zeros((1000, 700, 3), np.uint8)
    picture[200:600, 100:500, 2] = 200
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture)
    batches = made(
        one_picture(path, (100, 200, 500, 600)), batch_size=1, augment=PlainAugment(mirror=0)
    )
    (batch,) = batches.epoch(0)
    x1, y1, x2, y2 = batch.faces[0].boxes[0].astype(int)
    assert (batch.images[0, 0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 150).all()
    assert int((batch.images[0, 0] > 150).sum()) == pytest.approx(26 * 26, rel=0.1)


def test_a_picture_that_never_keeps_a_face_is_replaced(drawn: PictureSet, tmp_path: Path) -> None:
    path = tmp_path / "tiny.png"
    cv2.imwrite(str(path), np.full((900, 900, 3), 7, np.uint8))
    tiny = Annotated("tiny.png", path, Faces.annotated([[4, 4, 6, 6]]))
    mixed = PictureSet("mixed", (tiny, *drawn.pictures[:3]))
    (batch,) = made(mixed, augment=PlainAugment()).epoch(0)
    assert all(len(faces) for faces in batch.faces)


def test_pictures_without_faces_are_left_out(drawn: PictureSet) -> None:
    none = Annotated("none.jpg", Path("/nowhere.jpg"), Faces.none())
    batches = made(PictureSet("mixed", (none, *drawn.pictures)), drop_last=False)
    assert sum(len(batch) for batch in batches.epoch(0)) == len(drawn)


def test_too_few_pictures_are_an_error(drawn: PictureSet) -> None:
    with pytest.raises(UsageError, match="has 3 pictures with faces; a batch needs 4"):
        made(drawn[:3])


def test_a_set_in_which_no_face_is_ever_kept_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tiny.png"
    cv2.imwrite(str(path), np.full((900, 900, 3), 7, np.uint8))
    batches = made(one_picture(path, (4, 4, 6, 6)), batch_size=1, augment=PlainAugment())
    with pytest.raises(DataError, match="no face"):
        next(batches.epoch(0))
