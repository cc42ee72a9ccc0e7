"""Nets put together: from files, of any widths, but of one kind."""

import pytest
import torch

from slimface.compress.prune.allocate import PerGroup
from slimface.compress.prune.step import Prune
from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.loading import load
from slimface.model import mtcnn, zoo
from slimface.model.build import build
from slimface.model.cascade import net_of, open_composed, split_source, with_nets
from slimface.model.checkpoint import fingerprint, load_checkpoint, save
from slimface.model.predictor import pipeline
from slimface.model.profile import profile
from slimface.step import Context


@pytest.fixture
def cascades():
    return build(mtcnn.facenet(), seed=0).eval(), build(mtcnn.facenet("other"), seed=1).eval()


def test_a_net_is_a_checkpoint_of_its_own(cascades, tmp_path):
    for name in mtcnn.NETS:
        net = net_of(cascades[0], name, where="x")
        save(net, tmp_path / f"{name}.safetensors")
        loaded = load_checkpoint(tmp_path / f"{name}.safetensors").detector
        assert fingerprint(loaded) == fingerprint(net)
        assert loaded.spec.landmarks == (5 if name == "onet" else 0)


def test_a_cascade_of_three_files_is_the_cascade_they_came_from(cascades, tmp_path):
    ours, _ = cascades
    for name in mtcnn.NETS:
        save(net_of(ours, name, where="x"), tmp_path / f"{name}.safetensors")
    parts = ",".join(f"{name}={tmp_path / name}.safetensors" for name in mtcnn.NETS)
    # No weights of the base are needed: it only says the rules.
    composed, _ = open_composed(f"mtcnn,{parts}")
    assert fingerprint(composed) == fingerprint(ours)
    assert load(f"mtcnn,{parts}").fingerprint() == fingerprint(ours)


def test_one_net_is_replaced_and_the_others_stay(cascades, tmp_path):
    ours, other = cascades
    save(ours, tmp_path / "ours.safetensors")
    save(other, tmp_path / "other.safetensors")
    mixed, _ = open_composed(f"{tmp_path}/ours.safetensors,rnet={tmp_path}/other.safetensors")
    assert torch.equal(mixed.rnet.dense.weight, other.rnet.dense.weight)
    assert torch.equal(mixed.onet.dense.weight, ours.onet.dense.weight)
    assert mixed.spec == ours.spec
    assert mixed.rnet.spec == ours.spec.of_net("rnet")


def test_one_net_alone_can_be_pruned_and_goes_into_another_cascade(cascades, tmp_path):
    ours, other = cascades
    step = Prune(allocator=PerGroup(rates={"rnet.*": 0.5}))
    slim = step(ours, Context(folder=tmp_path))
    assert profile(slim.rnet, 24, 24).parameters < 0.5 * profile(ours.rnet, 24, 24).parameters
    for name in ("pnet", "onet"):
        assert torch.equal(
            net_of(slim, name, where="").conv1.weight, net_of(ours, name, where="").conv1.weight
        )
    save(slim.rnet, tmp_path / "slim.safetensors")
    mixed = with_nets(other, {"rnet": load_checkpoint(tmp_path / "slim.safetensors").detector})
    save(mixed, tmp_path / "mixed.safetensors")
    assert fingerprint(load_checkpoint(tmp_path / "mixed.safetensors").detector) == (
        fingerprint(mixed)
    )


def test_nets_of_another_kind_of_cascade_are_refused(cascades):
    floor = build(mtcnn.floor(), seed=0)
    with pytest.raises(CheckpointError, match="differ in ceil, preprocess, resize"):
        with_nets(cascades[0], {"pnet": floor})


@pytest.mark.parametrize(
    "source", ["mtcnn,rnet=", "mtcnn,qnet=x", "mtcnn,rnet=a,rnet=b", "mtcnn,rnet"]
)
def test_what_names_no_net_is_refused(source):
    with pytest.raises(UsageError, match="replaces no net"):
        split_source(source)


def test_what_is_no_cascade_has_no_nets(cascades, tmp_path):
    whole = build(zoo.entry("eresfd").spec, seed=0)
    with pytest.raises(UsageError, match="no cascade"):
        with_nets(whole, {"rnet": cascades[0]})
    with pytest.raises(UsageError, match="has no rnet"):
        with_nets(cascades[0], {"rnet": whole})
    with pytest.raises(UsageError, match="has no rnet"):
        with_nets(cascades[0], {"rnet": cascades[1].onet})
    save(cascades[0], tmp_path / "a.safetensors")
    with pytest.raises(MissingError, match=r"gone\.safetensors"):
        open_composed(f"{tmp_path}/a.safetensors,rnet={tmp_path}/gone.safetensors")


def test_one_net_finds_no_faces_of_pictures(cascades):
    with pytest.raises(UsageError, match="one net of a cascade"):
        pipeline(cascades[0].rnet)
