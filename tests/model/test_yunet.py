"""YuNet: the same numbers as its published ONNX file, and batch norms that can be trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimface.errors import CheckpointError, MissingError, RecipeError
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels
from slimface.model.yunet import _joint_logit, read_onnx, yunet
from tests.model.real_faces import assert_faces_are_found


def test_the_published_facts_hold() -> None:
    built = build(yunet(), seed=0)
    assert profile(built, 640, 640).parameters == 75_856
    assert built.spec.anchors.count(640, 640) == 6400 + 1600 + 400


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 130), (5, 3)])
def test_every_size_gives_one_prediction_a_cell(height: int, width: int) -> None:
    built = build(yunet(width=8), seed=0).eval()
    with torch.inference_mode():
        raw = built(torch.zeros(2, 3, height, width))
    assert raw.logits.shape == (2, built.spec.anchors.count(height, width))


def test_a_cell_says_where_a_face_is_in_cells() -> None:
    """Cell (row 1, column 2) of stride 16: centre (2.5, 1.25) cells, sides e and 1 cells."""
    spec = yunet()
    anchors = spec.anchors.anchors(64, 64)
    cell = anchors[64 + 1 * 4 + 2]
    box = spec.codec.decode(np.asarray([[0.5, 0.25, 1, 0]], dtype=np.float32), cell[None])
    centre, sides = (40, 20), (16 * np.e, 16)
    expected = [
        centre[0] - sides[0] / 2, centre[1] - sides[1] / 2,
        centre[0] + sides[0] / 2, centre[1] + sides[1] / 2,
    ]  # fmt: skip
    np.testing.assert_allclose(box[0], expected, rtol=1e-6)
    points = spec.codec.decode_points(np.full((1, 5, 2), 0.5, dtype=np.float32), cell[None])
    np.testing.assert_allclose(points[0, 0], [40, 24])


def test_the_joint_logit_is_that_of_the_root_of_the_product() -> None:
    first, second = torch.meshgrid(*[torch.linspace(-12, 12, 97).double()] * 2, indexing="ij")
    score = (first.sigmoid() * second.sigmoid()).sqrt()
    assert torch.allclose(_joint_logit(first, second), torch.logit(score), atol=1e-6)


def test_the_joint_logit_is_finite_and_trainable_at_the_ends() -> None:
    ends = torch.tensor([-300.0, -60, 0, 60, 300])
    first, second = (x.flatten() for x in torch.meshgrid(ends, ends, indexing="ij"))
    first.requires_grad_()
    joint = _joint_logit(first, second)
    joint.sum().backward()
    assert torch.isfinite(joint).all() and torch.isfinite(first.grad).all()
    assert (torch.diff(joint.view(5, 5), dim=0) >= 0).all()


def test_training_reaches_every_parameter() -> None:
    built = build(yunet(width=8), seed=0).train()
    raw = built(torch.randn(2, 3, 64, 64))
    sum(part.square().mean() for part in raw if part is not None).backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


def test_a_new_network_keeps_its_norms() -> None:
    built = build(yunet(width=8), seed=0).train()
    built(torch.randn(2, 3, 64, 64))
    assert all((m.weight == 1).all() for m in built.modules() if isinstance(m, nn.BatchNorm2d))


def test_channels_can_be_cut() -> None:
    built = build(yunet(width=8), seed=0).eval()
    keep = {g.name: range(g.size // 2) for g in channel_groups(built) if g.prunable}
    assert len(keep) > 10
    narrow = remove_channels(built, keep)
    assert profile(narrow, 64, 64).parameters < profile(built, 64, 64).parameters / 2


@pytest.mark.parametrize(
    ("options", "complaint"), [({"depth": 3}, "no option depth"), ({"width": 0}, "width 0")]
)
def test_wrong_options_are_named(options: dict, complaint: str) -> None:
    spec = yunet()
    architecture = spec.architecture.model_copy(update={"options": options})
    with pytest.raises(RecipeError, match=complaint):
        build(spec.model_copy(update={"architecture": architecture}))


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("weights")
    with pytest.raises(CheckpointError, match="no ONNX file"):
        read_onnx(tmp_path / "text.onnx")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(CheckpointError, match="another network"):
        read_onnx(tmp_path / "large.onnx")


@pytest.mark.data
def test_torch_says_what_the_published_file_says(
    published_weights: None, weights_root: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = weights_root / "peers" / "yunet_n_dynamic.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, 96, 160)).astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    said = dict(zip(names, session.run(None, {"input": images}), strict=True))
    face, placement, boxes, points = (
        np.concatenate([said[f"{head}_{stride}"] for stride in (8, 16, 32)], axis=1)
        for head in ("cls", "obj", "bbox", "kps")
    )
    with torch.inference_mode():
        raw = zoo.load("yunet-n")(torch.from_numpy(images))
    score = np.sqrt(face * placement)[..., 0]
    np.testing.assert_allclose(raw.logits.sigmoid().numpy(), score, atol=1e-4)
    np.testing.assert_allclose(raw.offsets.numpy(), boxes, atol=1e-4)
    np.testing.assert_allclose(raw.landmarks.flatten(2).numpy(), points, atol=1e-4)


@pytest.mark.data
def test_published_weights_find_faces_and_landmarks(
    published_weights: None, wider_root: Path
) -> None:
    found = assert_faces_are_found(zoo.load("yunet-n"), wider_root)
    assert found.landmarks is not None
    assert (found.landmarks[:, 0, 0] < found.landmarks[:, 1, 0]).all()


@pytest.mark.data
def test_folded_norms_wake_up_without_changing_the_network(published_weights: None) -> None:
    detector = zoo.load("yunet-n")
    images = 255 * torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = detector.maps(images)
    for norm in detector.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.0
    with torch.no_grad():
        trained = detector.train().maps(images)
        after = detector.eval().maps(images)
    norm = detector.get_submodule("backbone.model2.conv1.bn")
    assert norm.weight.std() > 0
    for one, two, three in zip(before, trained, after, strict=True):
        assert torch.allclose(one, two, atol=1e-2) and torch.allclose(one, three, atol=1e-2)


@pytest.mark.data
def test_norms_that_keep_their_statistics_sleep_on_and_wake_up_later(
    published_weights: None,
) -> None:
    detector = zoo.load("yunet-n")
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    images = 255 * torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    detector.train()
    for norm in norms:
        norm.eval()
        norm.momentum = 0.0
    detector.maps(images)
    assert not any(norm.training or norm.running_mean.any() for norm in norms)
    with torch.no_grad():
        for norm in norms:
            norm.weight.mul_(1.1)
            norm.bias.add_(0.01)
        asleep = detector.maps(images)
        awake = detector.train().maps(images)
    assert all(norm.training and norm.running_mean.any() for norm in norms)
    for one, two in zip(asleep, awake, strict=True):
        assert torch.allclose(one, two, atol=1e-2)


@pytest.mark.data
def test_no_layer_of_the_published_network_learns_at_another_pace(published_weights: None) -> None:
    """The first one did, 200 times as fast: its weights take pixels of up to 255."""
    detector = zoo.load("yunet-n").eval()
    images = 255 * torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    raw = detector(images)
    (raw.logits.square().mean() + raw.offsets.square().mean()).backward()
    pace = {
        name: float(parameter.grad.norm() / parameter.detach().norm())
        for name, parameter in detector.named_parameters()
        if name.endswith("conv1.weight") and parameter.grad is not None
    }
    median = sorted(pace.values())[len(pace) // 2]
    assert pace["backbone.model0.conv1.weight"] < 20 * median


@pytest.mark.data
def test_another_onnx_file_is_refused(published_weights: None, weights_root: Path) -> None:
    with pytest.raises(CheckpointError):
        zoo.import_weights(weights_root / "peers" / "rfb640.onnx", like="yunet-n")
