"""A small detector with something to say, and the files it was exported to, once for all tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimface.deploy.pipeline import Picture
from slimface.export.onnx import Onnx
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.model.eresfd import naver
from slimface.model.retinaface import retinaface


def lively(detector: Detector, seed: int = 0) -> Detector:
    """Give a random detector opinions: spread scores, a few hundred of them high."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in detector.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.Conv2d) and name in detector.head_names:
                module.weight.normal_(std=0.2, generator=generator)
                if module.out_channels != 4 or name.startswith("conf"):
                    module.bias[-1] -= 1.5
    return detector.eval()


@pytest.fixture(scope="session")
def detector() -> Detector:
    return lively(build(naver("tiny", width=8), seed=0))


@pytest.fixture(scope="session")
def landmarked() -> Detector:
    return lively(build(retinaface("tiny"), seed=0))


@pytest.fixture(scope="session")
def raw_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "tiny.onnx"
    Onnx(height=96, width=128).write(detector, path, provenance={"parent": "nobody"})
    return path


@pytest.fixture(scope="session")
def decoded_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoded") / "tiny.onnx"
    Onnx(height=96, width=128, decode=True).write(detector, path)
    return path


@pytest.fixture(scope="session")
def pictures() -> list[tuple[str, Picture]]:
    rng = np.random.default_rng(0)
    sizes = [(96, 128), (131, 77), (64, 64)]
    return [(f"noise {h}x{w}", rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]
