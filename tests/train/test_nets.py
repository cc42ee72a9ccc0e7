"""One net of a cascade learns from its crops: losses, batches, the step, the command."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.data.crop_set import make_crops
from slimface.data.crops import Cuts, Kind, record_type
from slimface.data.source import DrawnScenes
from slimface.errors import CheckpointError, RecipeError, UsageError
from slimface.model import eresfd, mtcnn
from slimface.model.build import build
from slimface.model.cascade import net_of
from slimface.model.checkpoint import fingerprint, load_checkpoint, save
from slimface.model.detector import RawTensors
from slimface.step import Context
from slimface.train.around import bind
from slimface.train.crops import PUBLISHED, CropBatches, CropLoss, as_batch, mirror_
from slimface.train.distill import Distill
from slimface.train.nets import TrainNet, adapted
from slimface.train.schedule import Schedule
from slimface.train.teacher import check_specs

CUTS = Cuts(smallest_px=14, negatives=8, tries=8, near=1, landmark_tries=4)
SHORT = Schedule(
    epochs=3, batch_size=64, optimizer="adam", learning_rate=3e-3, weight_decay=0, decay="none"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFACE_HOME", str(tmp_path_factory.mktemp("home")))
        source = DrawnScenes(train=40, val=2, size_px=128)
        source.pictures("train")
        yield source


@pytest.fixture
def context(source, tmp_path):
    return Context(folder=tmp_path, source=source, seed=3)


def records(kinds, side=12):
    found = np.zeros(len(kinds), record_type(side))
    found["kind"] = kinds
    found["landmarks"] = np.nan
    return found


def test_the_loss_is_the_published_sum():
    batch = as_batch(records([Kind.POSITIVE, Kind.NEGATIVE, Kind.PART, Kind.LANDMARK], 48))
    batch.offsets[:] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    batch.landmarks[3] = 0.5
    torch.manual_seed(0)
    raw = RawTensors(torch.randn(4, 1), torch.randn(4, 1, 4), torch.randn(4, 1, 5, 2))
    loss = CropLoss(hardest=1, box_weight=20, landmark_weight=20)(None, raw, batch)
    two = torch.stack([torch.zeros(4), raw.logits[:, 0]], dim=1)
    classes = functional.cross_entropy(two[:2], torch.tensor([1, 0]))
    box = functional.mse_loss(raw.offsets[[0, 2, 3], 0], batch.offsets[[0, 2, 3]])
    points = functional.mse_loss(raw.landmarks[3, 0], batch.landmarks[3])
    torch.testing.assert_close(loss.total, classes + 20 * box + 20 * points)
    assert PUBLISHED["pnet"].box_weight == PUBLISHED["rnet"].box_weight == 5
    assert (PUBLISHED["onet"].box_weight, PUBLISHED["onet"].landmark_weight) == (20, 20)


def test_only_the_hardest_share_of_the_classified_counts():
    batch = as_batch(records([Kind.NEGATIVE] * 10))
    logits = torch.arange(10.0)[:, None].requires_grad_()
    raw = RawTensors(logits, torch.zeros(10, 1, 4))
    CropLoss(hardest=0.7)(None, raw, batch).total.backward()
    assert (logits.grad[:, 0] != 0).tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize("kind", [Kind.PART, Kind.NEGATIVE, Kind.LANDMARK])
def test_a_batch_of_one_kind_has_a_finite_loss_with_a_gradient(kind):
    raw = RawTensors(torch.ones(3, 1, requires_grad=True), torch.ones(3, 1, 4, requires_grad=True))
    loss = CropLoss()(None, raw, as_batch(records([kind] * 3))).total
    loss.backward()
    assert torch.isfinite(loss)


def test_mirroring_twice_changes_nothing_and_once_swaps_the_eyes():
    rng = np.random.default_rng(0)
    one = records([Kind.LANDMARK] * 2, 48)
    one["pixels"] = rng.integers(0, 256, one["pixels"].shape)
    one["offsets"] = rng.normal(size=(2, 4))
    one["landmarks"] = rng.random((2, 5, 2))
    again = one.copy()
    which = np.array([True, False])
    mirror_(again, which)
    left_eye, right_eye = one["landmarks"][0, 0], again["landmarks"][0, 1]
    np.testing.assert_allclose([1 - left_eye[0], left_eye[1]], right_eye, atol=1e-6)
    # The left side of the mirrored face is where its right side was.
    np.testing.assert_allclose(again["offsets"][0, 0], -one["offsets"][0, 2])
    assert (again["pixels"][0] == one["pixels"][0][:, ::-1]).all()
    np.testing.assert_array_equal(again["pixels"][1], one["pixels"][1])
    mirror_(again, which)
    np.testing.assert_allclose(again["landmarks"], one["landmarks"], atol=1e-6)


def test_an_epoch_is_the_same_each_time_and_can_be_entered_in_the_middle(source, tmp_path):
    pictures = source.pictures("train")
    crops = make_crops(tmp_path / "c", pictures, "pnet", mtcnn.facenet(), cuts=CUTS)
    batches = CropBatches(crops, batch_size=50, seed=1)
    whole = [batch.images for batch in batches.epoch(2)]
    assert len(whole) == len(batches) == len(crops) // 50
    rest = [batch.images for batch in batches.epoch(2, skip=3)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not torch.equal(whole[0], next(iter(batches.epoch(3))).images)
    with pytest.raises(UsageError, match="fewer than one batch"):
        CropBatches(crops, batch_size=10**6)


def test_a_net_learns_and_the_others_stay(context):
    cascade = build(mtcnn.facenet(), seed=0).eval()
    before = fingerprint(cascade)
    trained = TrainNet(net="pnet", schedule=SHORT, cuts=CUTS)(cascade, context)
    assert fingerprint(cascade) == before
    assert fingerprint(trained.pnet) != fingerprint(cascade.pnet)
    for net in ("rnet", "onet"):
        assert fingerprint(net_of(trained, net, where="x")) == fingerprint(
            net_of(cascade, net, where="x")
        )
    losses = (context.folder / "records.jsonl").read_text().splitlines()
    assert len(losses) == 3
    # The net alone is a checkpoint of its own, and the same net.
    alone = load_checkpoint(context.folder / "last.safetensors").detector
    assert isinstance(alone, mtcnn.PNet)
    # Called again, nothing is left to do, and the result is the same.
    assert fingerprint(TrainNet(net="pnet", schedule=SHORT, cuts=CUTS)(cascade, context)) == (
        fingerprint(trained)
    )


def test_the_last_net_learns_landmarks_of_faces_that_the_nets_before_let_through(context):
    spec = mtcnn.facenet().model_copy(
        update={"proposal_floor": 0.0, "refine_floor": 0.0, "proposals": 150}
    )
    cascade = build(spec, seed=0).eval()
    step = TrainNet(net="onet", schedule=SHORT, cuts=CUTS)
    crops = step.find_crops(cascade, context)
    assert crops.side_px == 48
    counts = crops.counts()
    assert min(counts["negative"], counts["landmark"]) > 0
    trained = step(cascade, context)
    assert not torch.equal(trained.onet.landmarks.weight, cascade.onet.landmarks.weight)
    with pytest.raises(UsageError, match="holds crops for onet, not for rnet"):
        TrainNet(net="rnet", schedule=SHORT, crops=str(context.folder / "crops"))(cascade, context)


@pytest.fixture
def taught_by(tmp_path):
    path = tmp_path / "teacher.safetensors"
    cascade = build(mtcnn.facenet(), seed=5)
    for net in cascade.children():
        # Random heads say the same of all crops; a teacher has opinions.
        net.scores.weight.data *= 30
    save(cascade, path)
    return Distill(teacher=str(path), weight=1, floor=0.2, of=PUBLISHED["onet"])


def crop_batch(side, count=64):
    some = records([Kind.NEGATIVE] * count, side)
    some["pixels"] = np.random.default_rng(0).integers(0, 256, some["pixels"].shape)
    return as_batch(some)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_a_net_comes_nearer_to_the_same_net_of_its_teacher(name, taught_by):
    net = net_of(build(mtcnn.facenet(), seed=1), name, where="x").requires_grad_(True)
    own = net_of(load_checkpoint(taught_by.teacher).detector, name, where="x")
    batch = crop_batch(net.side_px)
    lesson, itself = bind(taught_by, net), bind(taught_by, own)
    same = itself(own, own(own.prepare(batch.images)), batch)
    assert float(same.total.detach()) == pytest.approx(0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = lesson(net, net(net.prepare(batch.images)), batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append({part: float(value) for part, value in loss.parts.items()})
    parts = {"teacher_scores", "teacher_boxes", *(["teacher_landmarks"] * (name == "onet"))}
    for part in parts:
        assert losses[-1][part] < losses[0][part], part


def test_a_teacher_counts_crops_by_its_confidence(taught_by):
    """Those it lets through, and thrice as many of the others: those furthest off."""
    net = net_of(build(mtcnn.facenet(), seed=1), "rnet", where="x").requires_grad_(True)
    lesson = bind(taught_by.model_copy(update={"floor": 0.9999}), net)
    raw = net(net.prepare(crop_batch(24).images))
    assert lesson(net, raw, crop_batch(24)).total.item() == 0


def test_a_step_puts_the_teacher_around_the_published_loss(context):
    cascade = build(mtcnn.facenet(), seed=0).eval()
    save(cascade, context.folder / "teacher.safetensors")
    taught = {"kind": "distill", "teacher": str(context.folder / "teacher.safetensors")}
    step = TrainNet.model_validate(
        {"net": "pnet", "schedule": SHORT, "cuts": CUTS, "criterion": taught}
    )
    assert step.criterion.of == PUBLISHED["pnet"]
    trained = step(cascade, context)
    assert fingerprint(trained.pnet) != fingerprint(cascade.pnet)
    record = (context.folder / "records.jsonl").read_text()
    assert "teacher_scores" in record and '"class"' in record


def test_a_net_has_no_other_teacher_than_the_same_net(taught_by, tmp_path):
    net = net_of(build(mtcnn.facenet(), seed=1), "rnet", where="x")
    with pytest.raises(UsageError, match="Name a cascade as the teacher"):
        check_specs(mtcnn.facenet(), _eresfd())
    save(
        build(mtcnn.facenet().model_copy(update={"crop": "pad"}), seed=0),
        tmp_path / "o.safetensors",
    )
    with pytest.raises(CheckpointError, match="another kind of cascade"):
        bind(taught_by.model_copy(update={"teacher": str(tmp_path / "o.safetensors")}), net)
    with pytest.raises(UsageError, match="only answers are compared"):
        bind(taught_by.model_copy(update={"feature_weight": 1.0}), net)
    faces = {**taught_by.model_dump(), "of": {"kind": "multibox"}}
    with pytest.raises(RecipeError, match="multibox is not for crops"):
        TrainNet.parse({"net": "rnet", "schedule": SHORT, "criterion": faces}, where="x")


def test_the_loss_of_crops_is_not_for_whole_pictures():
    picture = Batch(
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [Faces.annotated([[9, 9, 40, 40]])]
    )
    raw = RawTensors(torch.zeros(1, 1), torch.zeros(1, 1, 4))
    with pytest.raises(UsageError, match="train_net"):
        CropLoss()(None, raw, picture)


def test_what_is_no_cascade_or_has_no_pictures_is_refused(context, tmp_path):
    step = TrainNet(net="pnet", schedule=SHORT)
    with pytest.raises(UsageError, match="has no pnet"):
        step(build(eresfd.spec() if hasattr(eresfd, "spec") else _eresfd(), seed=0), context)
    with pytest.raises(UsageError, match="Training needs pictures"):
        step(build(mtcnn.facenet(), seed=0), Context(folder=tmp_path))


def _eresfd():
    from slimface.model import zoo

    return zoo.entry("eresfd").spec


def test_presets_are_those_published_and_fit_other_lengths():
    plan = adapted("onet", epochs=50).schedule
    assert (plan.learning_rate, plan.batch_size, plan.optimizer) == (0.01, 1024, "adam")
    assert plan.decay_epochs == (5, 20, 40)
    assert adapted("onet", onwards=True).schedule.learning_rate == pytest.approx(1e-4)
    assert adapted("rnet").criterion == PUBLISHED["rnet"]


@pytest.mark.slow
def test_the_commands_cut_crops_and_train_a_net(source, tmp_path):
    def slimface(*words):
        command = [sys.executable, "-m", "slimface", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    from slimface.data.drawn import Drawn, write_drawn

    for split in ("train", "val"):
        write_drawn(Drawn(count=12, height_px=96, width_px=96, seed=1), tmp_path / "d", split)
    made = slimface("data", "crops", "pnet", "c", "--data", "d", "--smallest", "14", "--json")
    assert '"net": "pnet"' in made.stdout, made.stderr
    done = slimface(
        "train", "mtcnn.pnet", "--scratch", "--data", "d", "--crops", "c", "--epochs", "2",
        "--batch-size", "64", "--out", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cascade = load_checkpoint(tmp_path / "run" / "model.safetensors").detector
    assert isinstance(cascade, mtcnn.MTCNN)
    taught = slimface(
        "train", "run/model.safetensors.pnet", "--teacher", "run/model.safetensors", "--data", "d",
        "--crops", "c", "--epochs", "1", "--batch-size", "64", "--out", "taught",
    )  # fmt: skip
    assert taught.returncode == 0, taught.stderr
    assert "teacher_scores" in (tmp_path / "taught" / "records.jsonl").read_text()
    wrong = slimface("train", "mtcnn.rnet", "--scratch", "--data", "d")
    assert wrong.returncode == 2 and "Train pnet first" in wrong.stderr
    wrong = slimface("data", "crops", "qnet", "c2")
    assert wrong.returncode == 2 and "no net of a cascade" in wrong.stderr
