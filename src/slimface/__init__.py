"""slimface: from a trained face detector to the smallest, fastest file a device can run.

The public names are loaded when first used, so that ``import slimface`` costs nothing and needs
no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Faces": "slimface.core.faces",
    "DetectorSpec": "slimface.core.spec",
    "SlimfaceError": "slimface.errors",
    "load": "slimface.loading",
    "load_classifier": "slimface.loading",
}

__all__ = ["DetectorSpec", "Faces", "SlimfaceError", "__version__", "load", "load_classifier"]

if TYPE_CHECKING:
    from slimface.core.faces import Faces
    from slimface.core.spec import DetectorSpec
    from slimface.errors import SlimfaceError
    from slimface.loading import load, load_classifier


def __getattr__(name: str) -> Any:
    """Load a public name from its home the first time somebody asks for it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'slimface' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
