"""Cascade: nets trained or pruned one by one, put together into one detector.

A cascade with other nets is named like ``mtcnn,rnet=slim.safetensors``: the cascade the rules and
the other nets come from, and where each replaced net is: its own checkpoint, that of a whole
cascade, or a name of the zoo.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

from slimface.core.spec import CASCADE_NETS, CascadeSpec
from slimface.errors import CheckpointError, UsageError
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.checkpoint import Provenance, load_checkpoint
from slimface.model.detector import Detector
from slimface.model.download import Progress
from slimface.model.mtcnn import MTCNN, Stage

_TRAINED_FOR = ("preprocess", "resize", "cells", "crop", "inclusive", "offset_pixels")
"""Rules that decide what a net sees and what its answers mean."""


def open_composed(source: str, *, progress: Progress | None = None) -> tuple[MTCNN, Provenance]:
    """Return the cascade of ``mtcnn,rnet=FILE``, and where its weights come from.

    Raises:
        UsageError, MissingError, CheckpointError: As ``split_source``, ``with_nets`` and what opens
            the parts.
    """
    base, nets = split_source(source)
    # Where all nets are replaced, only the rules of the base are needed: nothing is downloaded.
    whole, provenance = _opened(base, progress, spec_only=set(nets) == set(CASCADE_NETS))
    parts = {net: _opened(place, progress) for net, place in nets.items()}
    given = [provenance, *(part for _, part in parts.values())]
    composed = with_nets(whole, {net: part for net, (part, _) in parts.items()})
    return composed, Provenance(
        recipe=source,
        origin=_both([one.origin for one in given]),
        licence=_both([one.licence for one in given]),
    )


def _opened(
    place: str, progress: Progress | None, *, spec_only: bool = False
) -> tuple[Detector, Provenance]:
    if Path(place).suffix:
        checkpoint = load_checkpoint(place)
        return checkpoint.detector, checkpoint.provenance
    known = zoo.entry(place)
    if spec_only:
        return build(known.spec, seed=0), Provenance()
    return zoo.load(place, progress=progress), known.provenance


def _both(words: Iterable[str | None]) -> str | None:
    """What all parts say, each once; terms of every part bind the whole."""
    return "; ".join(dict.fromkeys(word for word in words if word)) or None


def split_source(source: str) -> tuple[str, dict[str, str]]:
    """Return the model, and which of its nets come from elsewhere, of ``mtcnn,rnet=FILE``.

    Raises:
        UsageError: A net has no place, is none of the three, or is named twice.
    """
    base, *replaced = source.split(",")
    nets: dict[str, str] = {}
    for part in replaced:
        net, equals, place = part.partition("=")
        if net not in CASCADE_NETS or not equals or not place or net in nets:
            raise UsageError(
                f"{source}: '{part}' replaces no net of a cascade.\n"
                "Write MODEL,NET=FILE with each of pnet, rnet and onet at most once, such as "
                "mtcnn,rnet=slim.safetensors."
            )
        nets[net] = place
    return base, nets


def net_of(detector: Detector, net: str, *, where: str) -> Stage:
    """Return a net of a cascade, or the detector itself if it is that net.

    Raises:
        UsageError: ``net`` is not in it.
    """
    if isinstance(detector, MTCNN) and net in CASCADE_NETS:
        stage: Stage = detector.get_submodule(net)  # type: ignore[assignment]
        return stage
    if isinstance(detector, Stage) and detector.net == net:
        return detector
    raise UsageError(
        f"{where} is {detector.spec.architecture.name}, which has no {net}.\n"
        f"The nets of a cascade are {', '.join(CASCADE_NETS)}; name one of them, or a whole "
        "cascade."
    )


def with_nets(cascade: Detector, nets: Mapping[str, Detector]) -> MTCNN:
    """Return a copy of a cascade in which some nets are others; widths may differ.

    Args:
        cascade: Where the rules and all other nets come from; it stays as it is.
        nets: Name of the net -> that net, or a cascade to take it from.

    Raises:
        UsageError: ``cascade`` is none, or a net is missing.
        CheckpointError: A net was trained for other rules, so that it would see other crops, or
            its answers would mean other boxes.
    """
    if not isinstance(cascade, MTCNN):
        raise UsageError(
            f"{cascade.spec.name} is no cascade, so it has no nets to replace.\n"
            "Name a cascade, such as mtcnn."
        )
    whole = copy.deepcopy(cascade)
    for name, given in nets.items():
        net = copy.deepcopy(net_of(given, name, where=given.spec.name))
        check_rules(whole.spec, net.spec, name)
        net.spec = whole.spec.of_net(name)
        setattr(whole, name, net)
    return whole


def check_rules(wanted: CascadeSpec, given: CascadeSpec, net: str) -> None:
    """Refuse a net that sees other crops than a cascade's, or whose answers mean other boxes.

    Raises:
        CheckpointError: See above; the message names the rules.
    """
    differing = [rule for rule in _TRAINED_FOR if getattr(wanted, rule) != getattr(given, rule)]
    if wanted.architecture.options.get("ceil", True) != given.architecture.options.get(
        "ceil", True
    ):
        differing.insert(0, "ceil")
    if differing:
        raise CheckpointError(
            f"{given.name} was trained for another kind of cascade than {wanted.name}: they differ "
            f"in {', '.join(differing)}.\nAs its {net}, it would answer with wrong boxes. Take a "
            "net of the same kind, or replace all three with a cascade of the other kind."
        )
