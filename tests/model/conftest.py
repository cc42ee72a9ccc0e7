"""Published weights for the tests of the zoo's models."""

from pathlib import Path

import pytest


@pytest.fixture
def published_weights(weights_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo finds the published files on this machine and fetches nothing."""
    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
