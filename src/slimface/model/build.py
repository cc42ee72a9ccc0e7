"""Build: from a spec to its module."""

from importlib import import_module

import torch

from slimface.core.spec import DetectorSpec
from slimface.errors import RecipeError
from slimface.model.detector import Detector

ARCHITECTURES = {
    "eresfd": "slimface.model.eresfd:ERESFD",
    "extd": "slimface.model.extd:EXTD",
    "mtcnn": "slimface.model.mtcnn:MTCNN",
    "retinaface": "slimface.model.retinaface:RetinaFace",
    "yunet": "slimface.model.yunet:YuNet",
}
"""Name in the spec -> module and class, imported when first built. One line an architecture."""


def build(spec: DetectorSpec, *, seed: int | None = None) -> Detector:
    """Return a new detector with the weights that training starts from.

    Args:
        spec: Which detector.
        seed: Draws the weights without touching torch's own generator; None draws them from it.

    Raises:
        RecipeError: The spec names an architecture or an option that does not exist.
    """
    kind = kind_of(spec)
    if seed is None:
        return kind(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(spec)


def kind_of(spec: DetectorSpec) -> type[Detector]:
    """Return the class that builds a spec.

    Raises:
        RecipeError: The spec names an architecture that does not exist.
    """
    home = ARCHITECTURES.get(spec.architecture.name)
    if home is None:
        raise RecipeError(
            f"No architecture is called {spec.architecture.name!r}.\n"
            f"Known: {', '.join(sorted(ARCHITECTURES))}. A newer slimface may know more."
        )
    module, _, name = home.partition(":")
    kind: type[Detector] = getattr(import_module(module), name)
    return kind
