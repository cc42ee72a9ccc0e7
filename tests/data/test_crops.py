"""Crops: windows as detection sees them, targets it decodes back, the same bytes every time."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.data.crop_set import LIST, CropSet, Opening, make_crops
from slimface.data.crops import SIDES, Cuts, Cutter, Kind, record_type
from slimface.data.drawn import Drawn, draw
from slimface.data.pictures import Annotated, PictureSet
from slimface.deploy.cascade_geometry import Geometry
from slimface.deploy.crops import Windowed
from slimface.deploy.draw import write_picture
from slimface.deploy.media import read_picture
from slimface.errors import DataError, MissingError, UsageError
from slimface.model import mtcnn
from slimface.train.crops import mirror_

SMALL = Cuts(smallest_px=12, negatives=6, tries=8, near=2, landmark_tries=5)
SPECS = [mtcnn.facenet(), mtcnn.floor()]


def scenes(folder: Path, count: int) -> PictureSet:
    spec = Drawn(count=count, height_px=96, width_px=128, seed=4, portrait_share=0)
    found = []
    for i in range(count):
        picture, faces = draw(spec, i)
        write_picture(folder / f"{i}.png", picture)
        found.append(Annotated(f"{i}.png", folder / f"{i}.png", faces))
    return PictureSet("scenes", tuple(found))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("scenes"), 40)


class Jittering:
    """Nets before, played by the truth: every face, a little off, and two places without one."""

    def __init__(self, pictures: PictureSet, net: str) -> None:
        self.boxes = {
            (view.height, view.width, int(view.rows(8, 8, 0, 8).sum())): one.faces.boxes
            for one in pictures
            for view in [Windowed(read_picture(one.path), "area")]
        }

    def seen_by(self, net, view):
        known = self.boxes[(view.height, view.width, int(view.rows(8, 8, 0, 8).sum()))]
        side = (known[:, 2:] - known[:, :2]).max(1, keepdims=True)
        centre = (known[:, :2] + known[:, 2:]) / 2
        squares = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
        away = np.array([[-30, -30, -6, -6], [120, 80, 160, 120]], np.float32)
        return np.concatenate([squares, squares + side * 0.2, away]).astype(np.float32)


def opening(pictures):
    return Opening(partial(Jittering, pictures, "rnet"), "truth")


@pytest.mark.parametrize("spec", SPECS, ids=["facenet", "floor"])
def test_what_a_net_is_taught_is_decoded_to_the_annotated_box(pictures, spec):
    geometry = Geometry(spec)
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 90, (50, 2))
    windows = np.concatenate([corner, corner + rng.integers(12, 60, (50, 1))], axis=1)
    targets = rng.uniform(0, 100, (50, 4)).astype(np.float32)
    points = rng.uniform(0, 100, (50, 5, 2)).astype(np.float32)
    cells = geometry.spec.cells == "round"
    for net in range(3) if cells else (1, 2):
        boxes = windows.astype(np.float32) if net == 0 else geometry.boxes_of_windows(windows)
        offsets = geometry.offsets(boxes, geometry.without_end(targets), net)
        found = geometry.with_end(geometry.moved(boxes, offsets, net))
        np.testing.assert_allclose(found, targets, atol=1e-3)
    again = geometry.landmarks(boxes, geometry.fractions(boxes, points))
    np.testing.assert_allclose(again, points, atol=1e-3)
    np.testing.assert_array_equal(geometry.windows(boxes, 1000, 1000), windows)


def test_the_first_net_learns_fractions_of_the_crop_as_was_published(pictures):
    """Detection of facenet takes the box of a cell to begin a pixel of the pyramid later."""
    geometry = Geometry(mtcnn.facenet())
    x, y = np.array([3, 7]), np.array([5, 0])
    corner = np.stack([x, y], axis=1) * 2 * 2
    windows = np.concatenate([corner, corner + 24], axis=1)
    np.testing.assert_array_equal(geometry.cells(x, y, 0.5), windows + np.array([2, 2, 0, 0]))
    faces = windows + np.array([[6, -12, 0, 12], [0, 6, 24, 6]])
    offsets = geometry.offsets(windows.astype(np.float32), faces.astype(np.float32), 0)
    np.testing.assert_allclose(offsets, [[0.25, -0.5, 0, 0.5], [0, 0.25, 1, 0.25]])


@pytest.mark.parametrize("spec", SPECS, ids=["facenet", "floor"])
@pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
def test_a_mirrored_crop_teaches_the_mirrored_face(pictures, spec, net):
    """The same windows of the mirrored picture, counted by the rules of the spec."""
    geometry, place, width = Geometry(spec), list(SIDES).index(net), 300
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 90, (40, 2))
    windows = np.concatenate([corner, corner + rng.integers(12, 60, (40, 1))], axis=1)
    faces = windows + rng.integers(-8, 9, (40, 4)).astype(np.float32)

    def taught(windows, faces):
        boxes = windows if net == "pnet" else geometry.boxes_of_windows(windows)
        boxes = boxes.astype(np.float32)
        offsets = geometry.offsets(boxes, geometry.without_end(faces), place)
        return offsets, geometry.lopsidedness(boxes, windows, place)

    def mirrored(boxes):
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)

    records = np.zeros(40, record_type(SIDES[net]))
    records["offsets"], records["lopsided"] = taught(windows, faces)
    mirror_(records, np.ones(40, bool))
    wanted, _ = taught(mirrored(windows), mirrored(faces))
    np.testing.assert_allclose(records["offsets"], wanted, atol=1e-5)


def test_crops_of_another_version_are_refused(pictures, tmp_path):
    make_crops(tmp_path, pictures.subset([0]), "pnet", mtcnn.facenet(), cuts=SMALL)
    text = (tmp_path / LIST).read_text()
    (tmp_path / LIST).write_text(text.replace('"version": 2', '"version": 1', 1))
    with pytest.raises(DataError, match="version 1"):
        CropSet.open(tmp_path)


def test_kinds_are_what_overlaps_say(pictures):
    cutter = Cutter("pnet", mtcnn.floor(), SMALL, 0)
    for one in pictures.pictures[:10]:
        records = cutter.records([one])
        faces = one.faces.boxes
        # The box of the crop comes back from its offsets: face = box + offset * side.
        about = records[records["kind"] != Kind.NEGATIVE]
        assert np.isnan(records["landmarks"]).all()
        assert (records["offsets"][records["kind"] == Kind.NEGATIVE] == 0).all()
        assert np.abs(about["offsets"]).max(initial=0) < 1.5
        assert len(faces)
    records = cutter.records(pictures)
    kinds = records["kind"]
    positives, parts = (kinds == Kind.POSITIVE).sum(), (kinds == Kind.PART).sum()
    assert positives > 50
    assert 0 < parts <= 1.2 * positives + 1
    # Positive crops overlap their face by 0.65: no side is off by more than about half.
    strong = records["offsets"][kinds == Kind.POSITIVE]
    assert np.abs(strong).max() < np.abs(records["offsets"][kinds == Kind.PART]).max()


def test_negatives_stay_away_from_all_faces_even_those_too_small_to_learn(pictures):
    from slimface.data.crops import _background

    one = next(one for one in pictures if len(one.faces) > 2)
    windows = _background(np.random.default_rng(0), one.faces.boxes, (96, 128), SMALL)
    assert len(windows) == 6
    assert overlaps(windows.astype(np.float32), one.faces.boxes).max() < 0.3


def test_mined_crops_are_cut_as_the_cascade_cuts_them(pictures):
    spec = mtcnn.facenet()
    finder = Jittering(pictures, "onet")
    one = pictures[0]
    records = Cutter("onet", spec, SMALL, 0, finder).records([one])
    view = Windowed(read_picture(one.path), spec.resize)
    boxes = finder.seen_by("onet", view)
    seen = view.crops(Geometry(spec).windows(boxes, view.height, view.width), 48)
    seen = np.rint(seen).astype(np.uint8).transpose(0, 2, 3, 1)
    mined = records[records["kind"] != Kind.LANDMARK]
    as_seen = [(crop == seen).all(axis=(1, 2, 3)).any() for crop in mined["pixels"]]
    assert sum(as_seen) > 2
    # What is not mined is background from anywhere, after what is.
    assert not mined["kind"][~np.array(as_seen)].any()
    # Landmarks where the whole face is seen, and drawn windows around it besides.
    whole = np.isin(records["kind"], (Kind.POSITIVE, Kind.LANDMARK))
    assert (records["kind"] == Kind.LANDMARK).any()
    assert np.isfinite(records["landmarks"][whole]).all()
    assert np.isnan(records["landmarks"][~whole]).all()
    inside = records["landmarks"][whole]
    assert ((inside > -0.3) & (inside < 1.3)).all()


def test_shares_of_mined_kinds_are_kept(pictures):
    cuts = SMALL.model_copy(update={"negatives_share": 0.25, "parts_share": 0.5})
    kinds = Cutter("rnet", mtcnn.facenet(), cuts, 0, Jittering(pictures, "")).records(pictures)
    kinds = kinds["kind"]
    positives = (kinds == Kind.POSITIVE).sum()
    assert 0 < (kinds == Kind.NEGATIVE).sum() <= 0.25 * positives + 2
    assert 0 < (kinds == Kind.PART).sum() <= 0.5 * positives + 2


@pytest.mark.parametrize("net", ["pnet", "rnet"])
def test_any_number_of_processes_writes_the_same_bytes(pictures, net, tmp_path):
    before = None if net == "pnet" else opening(pictures)
    for workers in (1, 2):
        make_crops(
            tmp_path / str(workers), pictures, net, mtcnn.facenet(), before=before, cuts=SMALL,
            workers=workers,
        )  # fmt: skip
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == [LIST, "shard-00000.npy", "shard-00001.npy"]
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    other = make_crops(
        tmp_path / "3", pictures, net, mtcnn.facenet(), before=before, cuts=SMALL, seed=1
    )
    if net == "pnet":
        first = CropSet.open(tmp_path / "1")
        assert (other.take(range(20))["pixels"] != first.take(range(20))["pixels"]).any()


def test_what_was_stopped_goes_on_and_ends_the_same(pictures, tmp_path):
    whole = tmp_path / "whole"
    make_crops(whole, pictures, "pnet", mtcnn.facenet(), cuts=SMALL)
    stopped = tmp_path / "stopped"

    # The first shard is noted before the second begins.
    seen = []

    def stop_after_first(items, description, total=None):
        for item in items:
            if seen:
                raise KeyboardInterrupt
            seen.append(item)
            yield item

    with pytest.raises(KeyboardInterrupt):
        make_crops(stopped, pictures, "pnet", mtcnn.facenet(), cuts=SMALL, track=stop_after_first)
    with pytest.raises(DataError, match="only 1 of 2 shards are done"):
        CropSet.open(stopped)
    first = (stopped / "shard-00000.npy").stat().st_mtime_ns
    make_crops(stopped, pictures, "pnet", mtcnn.facenet(), cuts=SMALL)
    assert (stopped / "shard-00000.npy").stat().st_mtime_ns == first
    for name in (LIST, "shard-00000.npy", "shard-00001.npy"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_a_set_is_read_in_any_order_and_split_by_picture(pictures, tmp_path):
    crops = make_crops(tmp_path / "c", pictures, "pnet", mtcnn.facenet(), cuts=SMALL)
    every = crops.take(range(len(crops)))
    places = np.random.default_rng(0).permutation(len(crops))[:200]
    np.testing.assert_array_equal(crops.take(places)["pixels"], every["pixels"][places])
    learn, check = crops.split(0.3)
    assert len(learn) + len(check) == len(crops)
    assert len(check) > 0
    assert not set(learn.column("group")) & set(check.column("group"))
    assert crops.counts()["positive"] == (every["kind"] == Kind.POSITIVE).sum()
    assert every["pixels"].shape[1:] == (SIDES["pnet"], SIDES["pnet"], 3)


def test_damaged_lost_and_foreign_crops_are_refused(pictures, tmp_path):
    folder = tmp_path / "c"
    with pytest.raises(MissingError, match="holds no crops"):
        CropSet.open(folder)
    make_crops(folder, pictures, "pnet", mtcnn.facenet(), cuts=SMALL)
    shard = folder / "shard-00001.npy"
    content = shard.read_bytes()
    with pytest.raises(UsageError, match=r"another plan \(other seed\)"):
        make_crops(folder, pictures, "pnet", mtcnn.facenet(), cuts=SMALL, seed=1)
    shard.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match="checksum differs"):
        CropSet.open(folder)
    shard.unlink()
    with pytest.raises(DataError, match="listed and not there"):
        CropSet.open(folder)
    # Made again, it is what it was.
    make_crops(folder, pictures, "pnet", mtcnn.facenet(), cuts=SMALL)
    assert shard.read_bytes() == content
    listed = json.loads((folder / LIST).read_text())
    listed["shards"]["0"]["file"] = "../shard-00000.npy"
    (folder / LIST).write_text(json.dumps(listed))
    with pytest.raises(DataError, match="not there"):
        CropSet.open(folder)
    (folder / LIST).write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        CropSet.open(folder)


def test_a_lost_picture_is_named(pictures, tmp_path):
    lost = replace(pictures[0], path=tmp_path / "gone.png")
    with pytest.raises((MissingError, DataError), match=r"gone\.png"):
        make_crops(tmp_path / "c", PictureSet("x", (lost,)), "pnet", mtcnn.facenet())


def test_nets_before_belong_to_all_but_the_first(pictures, tmp_path):
    with pytest.raises(UsageError, match="rnet learns from what nets let through"):
        make_crops(tmp_path / "c", pictures, "rnet", mtcnn.facenet())
    with pytest.raises(UsageError, match="pnet learns from drawn crops"):
        make_crops(tmp_path / "c", pictures, "pnet", mtcnn.facenet(), before=opening(pictures))
    with pytest.raises(UsageError, match="has no pictures"):
        make_crops(tmp_path / "c", PictureSet("none", ()), "pnet", mtcnn.facenet())


def annotated(folder, picture, faces, name="x.png"):
    if picture.ndim == 2:
        cv2.imwrite(str(folder / name), picture)
    else:
        write_picture(folder / name, picture)
    return Annotated(name, folder / name, faces)


def test_odd_pictures_give_what_they_can(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (60, 80), dtype=np.uint8)
    empty = annotated(tmp_path, grey, Faces.none(), "grey.png")
    tiny = annotated(tmp_path, grey[:10, :11], Faces.none(), "tiny.png")
    outside = Faces.annotated([[-10, -10, 30, 30], [60, 40, 120, 90], [5, 5, 5, 50]])
    odd = annotated(tmp_path, np.dstack([grey] * 3), outside, "odd.png")
    full = annotated(
        tmp_path, np.dstack([grey] * 3), Faces.annotated([[14, 4, 66, 56]]), "full.png"
    )
    cutter = Cutter("pnet", mtcnn.facenet(), SMALL, 0)
    assert cutter.records([empty])["kind"].tolist() == [Kind.NEGATIVE] * 6
    assert (np.ptp(cutter.records([empty])["pixels"], axis=3) == 0).all()
    assert len(cutter.records([tiny])) == 0
    # Faces that leave the picture, or have no width, teach nothing.
    assert set(cutter.records([odd])["kind"]) == {Kind.NEGATIVE}
    assert (cutter.records([full])["kind"] != Kind.NEGATIVE).any()


def test_two_thousand_faces_are_cut_in_bounded_memory(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    x, y = np.meshgrid(np.arange(0, 784, 16), np.arange(0, 592, 14))
    corner = np.stack([x.ravel(), y.ravel()], axis=1)[:2000]
    crowd = annotated(tmp_path, picture, Faces.annotated(np.hstack([corner, corner + 13])))
    records = Cutter("pnet", mtcnn.facenet(), SMALL, 0).records([crowd])
    assert (records["kind"] == Kind.POSITIVE).sum() > 2000
