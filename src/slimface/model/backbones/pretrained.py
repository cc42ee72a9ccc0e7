"""Pretrained: ImageNet weights for the backbone of a detector that is to be trained."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from slimface.errors import CheckpointError, MissingError
from slimface.model.backbones.backbone import Backbone
from slimface.model.checkpoint import read_published

log = logging.getLogger(__name__)


def load_pretrained_(backbone: Backbone, source: Path | str | None = None) -> None:
    """Give a backbone the weights of a classifier; what only the classifier needs is left out.

    Args:
        backbone: ``detector.body``; changed in place.
        source: The file of the whole classifier's tensors (``.safetensors``, or ``.pth``, ``.pt``,
            ``.tar``, of which nothing but tensors is read); None lets timm or torchvision download
            the weights they publish.

    Raises:
        MissingError: There is no such file; nobody publishes weights, or they are out of reach.
        CheckpointError: The file does not hold the weights of this backbone.
    """
    if source is None:
        if os.environ.get("SLIMFACE_OFFLINE", "0") not in ("", "0"):
            raise MissingError(
                "SLIMFACE_OFFLINE forbids the network.\n"
                "Give a file with the weights, or train from random ones."
            )
        place, tensors = "the published weights", backbone.published_state()
    else:
        place, tensors = str(source), _read(Path(source))
    # timm renames stages.0 to stages_0 where it takes a network apart.
    given = {_flat(name): tensor for name, tensor in tensors.items()}
    wanted = {backbone.published_name(name): name for name in backbone.state_dict()}
    _check(backbone, given, {_flat(key): name for key, name in wanted.items()}, place)
    state = {name: given[_flat(key)] for key, name in wanted.items()}
    backbone.load_state_dict(state, strict=True)


def _check(
    backbone: Backbone, given: Mapping[str, Tensor], wanted: Mapping[str, str], place: str
) -> None:
    state = backbone.state_dict()
    missing = sorted(key for key in wanted if key not in given)
    misfits = sorted(
        key
        for key, name in wanted.items()
        if key in given and given[key].shape != state[name].shape
    )
    surplus = sorted(
        key
        for key in given.keys() - wanted.keys()
        if not key.startswith(tuple(f"{name}_" for name in backbone.classifier_names))
    )
    strange = surplus if backbone.is_whole else []
    if missing or misfits or strange:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for what, names in (
                ("missing", missing), ("of another shape", misfits), ("unknown", strange),
            )
            if names
        ]  # fmt: skip
        raise CheckpointError(
            f"{place}: of the tensors of {type(backbone).__name__}, {'; '.join(parts)}.\n"
            "The file holds another network, or not the whole classifier."
        )
    if surplus:
        log.info("%s: %d tensors of layers after the last map were left out", place, len(surplus))


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_published(path)
    if not path.is_file():
        raise MissingError(f"There is no file {path}.\nCheck the path.")
    try:
        return dict(load_file(path, device=str(torch.device("cpu"))))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file: {error}.\nFetch it again."
        ) from None
