"""Build: from a spec to its module."""

from importlib import import_module
from typing import overload

import torch

from slimface.core.spec import DetectorSpec, ModelSpec
from slimface.errors import RecipeError
from slimface.model.detector import Detector
from slimface.model.network import Network

ARCHITECTURES = {
    "classifier": "slimface.model.classifier:Classifier",
    "eresfd": "slimface.model.eresfd:ERESFD",
    "extd": "slimface.model.extd:EXTD",
    "mtcnn": "slimface.model.mtcnn:MTCNN",
    "mtcnn.onet": "slimface.model.mtcnn:ONet",
    "mtcnn.pnet": "slimface.model.mtcnn:PNet",
    "mtcnn.rnet": "slimface.model.mtcnn:RNet",
    "retinaface": "slimface.model.retinaface:RetinaFace",
    "yunet": "slimface.model.yunet:YuNet",
}
"""Name in the spec -> module and class, imported when first built. One line an architecture."""


@overload
def build(spec: DetectorSpec, *, seed: int | None = None) -> Detector: ...
@overload
def build(spec: ModelSpec, *, seed: int | None = None) -> Network: ...
def build(spec: ModelSpec, *, seed: int | None = None) -> Network:
    """Return a new model with the weights that training starts from.

    Args:
        spec: Which model.
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


@overload
def kind_of(spec: DetectorSpec) -> type[Detector]: ...
@overload
def kind_of(spec: ModelSpec) -> type[Network]: ...
def kind_of(spec: ModelSpec) -> type[Network]:
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
    kind: type[Network] = getattr(import_module(module), name)
    return kind
