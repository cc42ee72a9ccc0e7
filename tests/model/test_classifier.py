from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimface.compress.prune.allocate import Uniform
from slimface.compress.prune.importance import Fpgm, NormScale
from slimface.compress.prune.step import Prune
from slimface.core.budget import parse_budget
from slimface.core.spec import ClassifierSpec, WholePicture, read_spec
from slimface.deploy.runtimes import open_class_file, open_exported
from slimface.errors import CheckpointError, RecipeError, UsageError
from slimface.export.classes import drawn_heads, export_classifier
from slimface.export.onnx import Onnx
from slimface.loading import load, load_classifier
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import fingerprint, load_checkpoint, save
from slimface.model.classifier import IMAGENET, Classifier, classifier
from slimface.model.predictor import class_pipeline
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels
from slimface.step import Context

CLASSES = ("cat", "dog", "owl")
SMALL = IMAGENET.model_copy(update={"height_px": 64, "width_px": 64})


def made(model: str = "mobilenetv3_small_050") -> Classifier:
    network = build(classifier(model, CLASSES, preprocess=SMALL), seed=0).eval()
    assert isinstance(network, Classifier)
    return network


def halved(network: Classifier) -> Classifier:
    groups = channel_groups(network)
    keep = {g.name: list(range(g.size // 2, g.size)) for g in groups if g.prunable}
    return remove_channels(network, keep, groups=groups)


@pytest.mark.parametrize(
    "model",
    [
        "mobilenetv3_small_050",
        "resnet10t",
        "lcnet_050",
        "ghostnet_050",
        "torchvision/mobilenet_v2",
        "torchvision/resnet18",
    ],
)
@pytest.mark.parametrize("importance", [Fpgm(), NormScale()], ids=lambda i: i.kind)
def test_any_convolutional_classifier_is_cut_to_a_budget(
    model: str, importance: Fpgm | NormScale, tmp_path: Path
) -> None:
    whole = made(model)
    budget = parse_budget("-40% macs@64x64")
    step = Prune(importance=importance, allocator=Uniform(budget=budget))
    cut: Any = step(whole, Context(folder=tmp_path))  # type: ignore[arg-type]
    costs = [profile(network, 64, 64).macs for network in (whole, cut)]
    assert 0.5 < costs[1] / costs[0] <= 0.6
    assert cut(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("model", ["mobilenetv3_small_050", "torchvision/mnasnet0_5"])
def test_a_cut_classifier_is_stored_and_read_back(model: str, tmp_path: Path) -> None:
    # MNASNet asks of a state which version of itself wrote it.
    cut = halved(made(model))
    save(cut, tmp_path / "cut.safetensors")
    again = load_checkpoint(tmp_path / "cut.safetensors")
    assert isinstance(again.network, Classifier)
    assert fingerprint(again.network) == fingerprint(cut)
    with pytest.raises(UsageError, match="a detector is needed"):
        _ = again.detector


def test_a_spec_survives_json() -> None:
    spec = classifier("resnet18", CLASSES)
    assert read_spec(spec.model_dump_json(), where="x") == spec


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"classes": ("one",)}, "at least 2"),
        ({"classes": ("one", "one")}, "two classes are called 'one'"),
        ({"preprocess": {"deviation": (1, 0, 1)}}, "above 0"),
        ({"preprocess": {"height_px": 0}}, "greater than 0"),
    ],
)
def test_a_senseless_spec_is_refused(changes: dict[str, object], mistake: str) -> None:
    data = classifier("resnet18", CLASSES).model_dump() | changes
    with pytest.raises(RecipeError, match=mistake):
        ClassifierSpec.parse(data, where="x")


@pytest.mark.parametrize(
    ("model", "advice"),
    [("resnet81", "resnet18"), ("torchvision/resnet81", "torchvision/resnet"), ("", "no classifi")],
)
def test_an_unknown_classifier_is_answered_with_the_nearest(model: str, advice: str) -> None:
    with pytest.raises(RecipeError, match=advice):
        build(classifier(model, CLASSES, name="x"), seed=0)


def test_preparing_is_what_the_pipeline_does() -> None:
    network = made()
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours = network.prepare(torch.from_numpy(picture).permute(2, 0, 1)[None])
    theirs = class_pipeline(network).prepare([picture])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_imagenet_pictures_are_normalised_as_torchvision_does() -> None:
    from torchvision.transforms.v2.functional import normalize, to_dtype

    picture = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    wanted = normalize(
        to_dtype(picture, torch.float32, scale=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(made().prepare(picture), wanted, rtol=1e-4, atol=1e-5)


def test_the_middle_is_cut_out_without_distortion() -> None:
    rule = WholePicture(height_px=50, width_px=50, fit="crop", crop=0.5)
    picture = np.zeros((100, 200, 3), dtype=np.uint8)
    picture[25:75, 75:125] = 255
    from slimface.deploy.preprocess import fitted

    assert fitted(picture, rule).shape == (50, 50, 3)
    assert fitted(picture, rule).min() == 255
    assert fitted(picture, rule.model_copy(update={"fit": "stretch"})).min() == 0


def test_the_exported_file_answers_alike_and_needs_no_torch(tmp_path: Path) -> None:
    network, path = halved(made()), tmp_path / "cut.onnx"
    report = export_classifier(network, path, Onnx())
    assert report.agrees and report.pictures == 32
    opened = load_classifier(path)
    assert opened.runtime == "onnxruntime" and opened.spec == network.spec
    (_, head), *_ = drawn_heads()
    np.testing.assert_allclose(
        opened.classify(head).scores, class_pipeline(network).classify(head).scores, atol=1e-4
    )
    batch = opened.classify_batch([head, head[::-1]])
    np.testing.assert_allclose(batch[0].scores, opened.classify(head).scores, atol=1e-5)
    with pytest.raises(UsageError, match="slimface classify"):
        load(path)
    with pytest.raises(UsageError, match="a classifier is needed"):
        _refuse_detector(tmp_path)


def _refuse_detector(folder: Path) -> None:
    from tests.conftest import _tiny_onnx

    open_class_file(_tiny_onnx(folder / "tiny.onnx", decoded=False))


def test_a_decoded_classifier_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no boxes to decode"):
        export_classifier(made(), tmp_path / "x.onnx", Onnx(decode=True))
    assert not list(tmp_path.iterdir())


def test_answers_that_are_no_numbers_are_refused() -> None:
    pipeline = class_pipeline(made())
    pipeline.network = lambda images: np.full((1, 3), np.nan, dtype=np.float32)
    with pytest.raises(CheckpointError, match="NaN"):
        pipeline.classify(np.zeros((64, 64, 3), dtype=np.uint8))
    pipeline.network = lambda images: np.zeros((1, 4), dtype=np.float32)
    with pytest.raises(CheckpointError, match="3 classes"):
        pipeline.classify(np.zeros((64, 64, 3), dtype=np.uint8))


def test_a_detector_is_still_opened_as_one(tmp_path: Path) -> None:
    from tests.conftest import _tiny_onnx

    assert open_exported(_tiny_onnx(tmp_path / "tiny.onnx", decoded=False)).spec.name == "tiny"
