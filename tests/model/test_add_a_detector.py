"""A detector costs one file, one test and one line: the page that says so, carried out."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from slimface.compress.prune.step import Prune
from slimface.data.source import DrawnScenes
from slimface.export.onnx import Onnx
from slimface.loading import load
from slimface.model import checkpoint, zoo
from slimface.model.build import ARCHITECTURES, build
from slimface.model.profile import profile
from slimface.step import Context
from slimface.train.presets import adapted, preset

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-detector.md"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The page's file and its line."""
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    module = ModuleType("slimface.model.tiny")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block[1], str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(ARCHITECTURES, "tiny", "slimface.model.tiny:Tiny")
    return "tiny"


def test_the_detector_of_the_page_is_trained_pruned_saved_exported_and_used(
    tiny: str, tmp_path: Path
) -> None:
    spec = zoo.entry(tiny).spec
    detector = build(spec, seed=0)
    course = adapted(preset(spec), epochs=1, batch_size=4)
    course = course.model_copy(update={"size_px": 64, "holdout": 0.0})
    scenes = DrawnScenes(train=8, val=2, size_px=64)
    trained = course(detector, Context(tmp_path, scenes, workers=0))
    step = Prune.parse({"allocator": {"rate": 0.5}}, where="test")
    narrow = step(trained, Context(tmp_path, scenes))
    assert profile(narrow, 64, 64).parameters < profile(trained, 64, 64).parameters
    checkpoint.save(narrow, tmp_path / "tiny.safetensors")
    Onnx(height=64, width=64).write(narrow, tmp_path / "tiny.onnx")
    pixels = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8).numpy()
    found = [load(tmp_path / f"tiny.{kind}").detect(pixels) for kind in ("safetensors", "onnx")]
    assert len(found[0]) == len(found[1])


def test_yunet_is_named_by_one_line() -> None:
    named = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"model\.yunet|import yunet|import YuNet", line)
    ]
    assert named == ['build.py: "yunet": "slimface.model.yunet:YuNet",']
