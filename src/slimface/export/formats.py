"""Every format a detector can be exported to, by name."""

import difflib

from slimface.errors import UsageError
from slimface.export.onnx import Onnx

FORMATS = {"onnx": Onnx}
"""Name -> format. A new one costs its module and its name here."""


def format_named(name: str) -> type[Onnx]:
    """Return the format of this name.

    Raises:
        UsageError: There is none; the message says the nearest.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"There is no format '{name}' to export to.\n{hint}Known: {', '.join(FORMATS)}."
    )
