"""Shrink: from zeroed filters to a smaller model with the same outputs.

The published systems zero filters and keep the file at full size. Deleting those filters breaks
the model, since their batch norms send constants on; folding the constants into the next bias is
wrong at zero-padded borders. Here the constants are carried exactly (see ``carriers``), and the
result is compared with the masked model before anybody gets it.
"""

import copy
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from slimface.compress.shrink.report import Filters, ShrinkReport, account, shrunk_groups
from slimface.compress.shrink.silence import is_cuttable, silence_constants_
from slimface.deploy.pipeline import Picture
from slimface.deploy.preprocess import fitted
from slimface.errors import TraceError, UsageError
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.classifier import Classifier
from slimface.model.network import Network
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)

TOLERANCE = 1e-5
"""Largest difference of outputs on noise, as a share of the largest, that passes for rounding."""


@dataclass(frozen=True, slots=True)
class Shrunk(Generic[N]):
    """A smaller model, and what it took."""

    network: N
    report: ShrinkReport


def shrink(
    network: N,
    *,
    exact: bool = True,
    pictures: Iterable[Picture] | None = None,
    size_px: tuple[int, int] = (480, 640),
) -> Shrunk[N]:
    """Return a masked model without the channels whose content no picture changes.

    Law: its outputs are those of ``network``, at every size, borders included; if not exact, but
    for the borders. Shrinking twice changes nothing more.

    Args:
        network: With filters set to zero, batch norms as they were. It stays as it is.
        exact: Keep channels that carry the constants of others to zero-padded convolutions. If
            not, all constants go into biases and batch norms, which is wrong where a convolution
            reaches over the border: fewer channels stay, and the report says what it costs.
        pictures: 8-bit RGB pictures to compare both models on, for the report.
        size_px: Height and width at which the report counts MACs, if the network takes any.

    Raises:
        UsageError: No filter is zero and nothing else is idle.
        TraceError: The channels cannot be followed, the weights are damaged, or the smaller model
            does not put out the same.
    """
    size_px = network.input_size or size_px
    filters = Filters(network)
    groups = channel_groups(network)
    work = copy.deepcopy(network).cpu().double().eval()
    _check_finite(work)
    found = silence_constants_(work, groups, borders=exact)
    keep = {
        name: (~gone).nonzero()[:, 0].numpy() for name, gone in found.gone.items() if gone.any()
    }
    if not keep and not len(filters):
        raise UsageError(
            f"{network.spec.name} has no zeroed filter, so there is nothing to shrink.\n"
            "Shrinking is for masked models; to remove channels by importance: slimface prune."
        )
    small = _like(remove_channels(work, keep, groups=_opened(groups)), network)
    noise_drift = _checked_drift(network, small, exact=exact)
    removed, carried, kept = account(network, groups, found, filters)
    count, score_drift, offset_drift = _picture_drift(network, small, pictures)
    report = ShrinkReport(
        model=network.spec.name,
        exact=exact,
        before=profile(network, *size_px),
        after=profile(small, *size_px),
        zeroed=len(filters),
        removed=removed,
        carried=carried,
        groups=shrunk_groups(groups, found),
        kept=kept,
        noise_drift=noise_drift,
        pictures=count,
        score_drift=score_drift,
        offset_drift=offset_drift,
    )
    log.info("%s", report)
    return Shrunk(small, report)


def _opened(groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """Allow cutting groups that only their idleness protects."""
    return tuple(replace(group, prunable=is_cuttable(group)) for group in groups)


def _like(small: Network, network: N) -> N:
    reference = next(network.parameters())
    alike = small.to(device=reference.device, dtype=reference.dtype).train(network.training)
    return cast(N, alike)


def _check_finite(work: Network) -> None:
    for name, tensor in work.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise TraceError(
                f"{name} of {work.spec.name} holds infinite or undefined numbers.\n"
                "Its weights are damaged; train or load it again."
            )


def _checked_drift(network: Network, small: Network, *, exact: bool) -> float:
    drift = _noise_drift(network, small)
    if exact and not drift <= TOLERANCE:
        raise TraceError(
            f"The smaller {network.spec.name} puts out something else: noise differs by "
            f"{drift:.1e} of its range ({TOLERANCE:g} allowed).\n"
            "Report this model's architecture; until then keep it masked."
        )
    return drift


def _noise_drift(network: Network, small: Network) -> float:
    """Compare outputs at two sizes, one of them odd, in double precision.

    So that only what was changed counts: other widths are added up in another order.
    """
    first = copy.deepcopy(network).cpu().double().eval()
    second = copy.deepcopy(small).cpu().double().eval()
    height, width = network.trace_size
    generator = torch.Generator().manual_seed(1)
    drifts = [0.0]
    for size in ((height, width), (2 * height + 9, 3 * width + 27)):
        images = 60 * torch.randn((2, 3, *size), generator=generator, dtype=torch.float64)
        with torch.inference_mode():
            try:
                expected = first.maps(images)
            except RuntimeError:
                if size == network.trace_size:
                    raise
                # A model for pictures of one size only.
                continue
            pairs = zip(expected, second.maps(images), strict=True)
            drifts += [_drift(one, other) for one, other in pairs]
    return max(drifts)


def _drift(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-30))


def _picture_drift(
    network: Network, small: Network, pictures: Iterable[Picture] | None
) -> tuple[int, float | None, float | None]:
    """Compare scores and offsets of all anchors on pictures at their own size.

    Of classifiers: the scores of all classes, on pictures at the classifier's size.
    """
    if pictures is None:
        return 0, None, None
    first, second = copy.deepcopy(network).eval(), copy.deepcopy(small).eval()
    reference = next(network.parameters())
    count, scores, offsets = 0, 0.0, 0.0
    rule = network.spec.preprocess if isinstance(network, Classifier) else None
    with torch.inference_mode():
        for picture in pictures:
            seen = picture if rule is None else fitted(picture, rule)
            tensor = torch.as_tensor(seen).permute(2, 0, 1).unsqueeze(0).to(reference.device)
            images = first.prepare(tensor)
            one, other = first(images), second(images)
            if rule is None:
                drift = (one.logits.sigmoid() - other.logits.sigmoid()).abs().max()
                offsets = max(offsets, float((one.offsets - other.offsets).abs().max()))
            else:
                drift = (one.softmax(1) - other.softmax(1)).abs().max()
            scores = max(scores, float(drift))
            count += 1
    return (count, scores, offsets if rule is None else None) if count else (0, None, None)
