"""Where tests find the real pictures and weights, and what they share."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"no {what} at {folder}; set {variable} to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def wider_root() -> Path:
    """The folder with WIDER_train, WIDER_val, wider_face_split and eval_tools."""
    return _folder("SLIMFACE_WIDER", _SHARED / "data" / "wider", "WIDER FACE pictures")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder with the published weights, one subfolder a family."""
    return _folder("SLIMFACE_WEIGHTS", _SHARED / "weights", "published weights")
