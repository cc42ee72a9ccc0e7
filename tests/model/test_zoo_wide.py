"""Every entry of the zoo, and every family of backbones, through everything that can be done to it.

Fast: small pictures, random weights, and two importances a network, so that all importances and all
rates are met. The whole grid, with published weights: ``benchmarks/zoo_grid.py``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from slimface.compress.prune.importance import DATA_DRIVEN, NormScale
from slimface.compress.prune.probe import Probe
from slimface.core.faces import Faces
from slimface.core.spec import CascadeSpec
from slimface.data.batches import Batch
from slimface.errors import TraceError
from slimface.export.onnx import Onnx
from slimface.model import checkpoint, zoo
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.train.criterion import MultiBox
from tests.model.drawn_detector import live_in_
from tests.model.pruning_grid import IMPORTANCES, RATES, maps_of, pruned

pytest.importorskip("timm")

BACKBONES = (
    *("ghostnet", "mobilenetv3"),
    *("mobilenetv4_conv_small_035", "lcnet_035", "ghostnet_050", "resnet10t", "regnetx_002"),
)
"""The published ones that have no entry, and families of timm's, with and without the traps:
squeeze-and-excite, ghosts, grouped convolutions."""

NAMES = (*zoo.names(), "mtcnn-floor", *(f"retinaface:{name}" for name in BACKBONES))

# Entries that differ in weights and anchors alone are one network to a pruner.
NETWORKS = tuple(
    {
        (zoo.entry(name).spec.architecture.model_dump_json()): name for name in reversed(NAMES)
    }.values()
)[::-1]


@cache
def living(name: str) -> tuple[Detector, tuple[ChannelGroup, ...]]:
    """The network with the numbers of a life in training, and its groups. Nobody may change it."""
    detector = live_in_(build(zoo.entry(name).spec, seed=0), 0)
    return detector, channel_groups(detector)


def pictures(detector: Detector) -> Batch:
    height, width = 64, 64
    faces = [Faces.annotated([[4, 4, 30, 36], [30, 30, 60, 60]]), Faces.annotated([[9, 9, 25, 25]])]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    return Batch(images, faces)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_built_and_answers_every_anchor(name: str) -> None:
    detector = build(zoo.entry(name).spec, seed=0).eval()
    if isinstance(detector.spec, CascadeSpec):
        assert all(level.isfinite().all() for level in maps_of(detector))
        return
    with torch.inference_mode():
        raw = detector(detector.prepare(pictures(detector).images))
    anchors = detector.spec.anchors.count(64, 64)
    assert raw.logits.shape == (2, anchors) and raw.logits.isfinite().all()
    assert raw.offsets.shape == (2, anchors, 4)
    assert (raw.landmarks is None) == (detector.spec.landmarks == 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_that_matters_learns(name: str) -> None:
    detector = build(zoo.entry(name).spec, seed=0).train()
    images = detector.prepare(torch.randint(0, 256, (2, 3, *detector.trace_size)))
    sum(level.square().mean() for level in detector.maps(images)).backward()
    idle = {m.module for group in living(name)[1] if group.idle for m in group.members}
    still = [key for key, p in detector.named_parameters() if p.grad is None]
    assert {key.rpartition(".")[0] for key in still} <= idle
    norms = [p.grad.norm() for p in detector.parameters() if p.grad is not None]
    assert torch.stack(norms).isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_saved_is_loaded_bit_by_bit(name: str, tmp_path: Path) -> None:
    detector, _ = living(name)
    checkpoint.save(detector, tmp_path / "model.safetensors")
    again = checkpoint.load_checkpoint(tmp_path / "model.safetensors").detector
    assert checkpoint.fingerprint(again) == checkpoint.fingerprint(detector)
    for one, other in zip(maps_of(again), maps_of(detector), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("number", range(len(NETWORKS)))
def test_pruned_networks_obey_the_laws(number: int, tmp_path: Path) -> None:
    """Two importances and rates each, another two for the next."""
    detector, groups = living(NETWORKS[number])
    probe = Probe([pictures(detector)], MultiBox())
    for turn in range(2 * number, 2 * number + 2):
        importance, rate = IMPORTANCES[turn % len(IMPORTANCES)], RATES[turn % len(RATES)]
        if isinstance(detector.spec, CascadeSpec) and isinstance(
            importance, (*DATA_DRIVEN, NormScale)
        ):
            # A cascade has no single pass to watch and no norms; its nets are pruned one by one.
            importance = IMPORTANCES[0]
        pruned(detector, groups, importance, rate, probe, tmp_path)


def test_all_importances_and_rates_are_met() -> None:
    turns = range(2 * len(NETWORKS))
    assert {turn % len(IMPORTANCES) for turn in turns} == set(range(len(IMPORTANCES)))
    assert {turn % len(RATES) for turn in turns} == set(range(len(RATES)))


SMALLEST = ("eresfd", "extd-32", "yunet-n", "retinaface-mobilenet025", "retinaface:lcnet_035")


@pytest.mark.parametrize("name", SMALLEST)
def test_pruned_and_exported_it_says_the_same(name: str, tmp_path: Path) -> None:
    """The export itself compares file and torch at two sizes, and would refuse."""
    onnxruntime = pytest.importorskip("onnxruntime")
    detector, groups = living(name)
    cell = pruned(detector, groups, IMPORTANCES[2], 0.5, None, tmp_path)
    narrow = cell.narrow
    assert isinstance(narrow, Detector)
    path = tmp_path / "narrow.onnx"
    Onnx(height=64, width=96).write(narrow, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = narrow.prepare(torch.randint(0, 256, (1, 3, 96, 64)))
    logits = session.run(None, {"images": images.numpy()})[0]
    with torch.inference_mode():
        wanted = narrow(images).logits.numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-3 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("name", ["convnext_atto"])
def test_a_backbone_whose_norms_mix_channels_is_refused_before_it_is_cut(name: str) -> None:
    """Removal could not be silence: a layer norm's statistics are over the channels."""
    with pytest.raises(TraceError, match="belongs to no layer whose channels are understood"):
        channel_groups(build(zoo.entry(f"retinaface:{name}").spec, seed=0))
