"""A bundle stands for the first of its model files."""

import json
from pathlib import Path

from slimface.core.bundle import read_bundle

SPEC_FILE = "spec.json"
_MAX_BYTES = 2**22


def bundled(path: Path) -> Path:
    """Return the first model file of a bundle; any other path as it is.

    Raises:
        CheckpointError, RecipeError: It is a bundle, and its spec is damaged or too new.
    """
    spec = path / SPEC_FILE
    if not path.is_dir() or not spec.is_file():
        return path
    with spec.open("rb") as file:
        text = file.read(_MAX_BYTES)
    try:
        is_bundle = "files" in json.loads(text)
    except (ValueError, TypeError):
        return path
    return path / read_bundle(text, where=str(spec)).files[0].path if is_bundle else path
