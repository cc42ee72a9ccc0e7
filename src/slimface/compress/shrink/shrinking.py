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

import torch
from torch import Tensor

from slimface.compress.shrink.report import Filters, ShrinkReport, account, shrunk_groups
from slimface.compress.shrink.silence import is_cuttable, silence_constants_
from slimface.deploy.pipeline import Picture
from slimface.errors import TraceError, UsageError
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest difference of outputs on noise, as a share of the largest, that passes for rounding."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A smaller model, and what it took."""

    detector: Detector
    report: ShrinkReport


def shrink(
    detector: Detector,
    *,
    exact: bool = True,
    pictures: Iterable[Picture] | None = None,
    size_px: tuple[int, int] = (480, 640),
) -> Shrunk:
    """Return a masked model without the channels whose content no picture changes.

    Law: its outputs are those of ``detector``, at every size, borders included; if not exact, but
    for the borders. Shrinking twice changes nothing more.

    Args:
        detector: With filters set to zero, batch norms as they were. It stays as it is.
        exact: Keep channels that carry the constants of others to zero-padded convolutions. If
            not, all constants go into biases and batch norms, which is wrong where a convolution
            reaches over the border: fewer channels stay, and the report says what it costs.
        pictures: 8-bit RGB pictures to compare both models on, for the report.
        size_px: Height and width at which the report counts MACs.

    Raises:
        UsageError: No filter is zero and nothing else is idle.
        TraceError: The channels cannot be followed, the weights are damaged, or the smaller model
            does not put out the same.
    """
    filters = Filters(detector)
    groups = channel_groups(detector)
    work = copy.deepcopy(detector).cpu().double().eval()
    _check_finite(work)
    found = silence_constants_(work, groups, borders=exact)
    keep = {
        name: (~gone).nonzero()[:, 0].numpy() for name, gone in found.gone.items() if gone.any()
    }
    if not keep and not len(filters):
        raise UsageError(
            f"{detector.spec.name} has no zeroed filter, so there is nothing to shrink.\n"
            "Shrinking is for masked models; to remove channels by importance: slimface prune."
        )
    small = _like(remove_channels(work, keep, groups=_opened(groups)), detector)
    noise_drift = _checked_drift(detector, small, exact=exact)
    removed, carried, kept = account(detector, groups, found, filters)
    count, score_drift, offset_drift = _picture_drift(detector, small, pictures)
    report = ShrinkReport(
        model=detector.spec.name,
        exact=exact,
        before=profile(detector, *size_px),
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


def _like(small: Detector, detector: Detector) -> Detector:
    reference = next(detector.parameters())
    return small.to(device=reference.device, dtype=reference.dtype).train(detector.training)


def _check_finite(work: Detector) -> None:
    for name, tensor in work.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise TraceError(
                f"{name} of {work.spec.name} holds infinite or undefined numbers.\n"
                "Its weights are damaged; train or load it again."
            )


def _checked_drift(detector: Detector, small: Detector, *, exact: bool) -> float:
    drift = _noise_drift(detector, small)
    if exact and not drift <= TOLERANCE:
        raise TraceError(
            f"The smaller {detector.spec.name} puts out something else: noise differs by "
            f"{drift:.1e} of its range ({TOLERANCE:g} allowed).\n"
            "Report this model's architecture; until then keep it masked."
        )
    return drift


def _noise_drift(detector: Detector, small: Detector) -> float:
    """Compare outputs at two sizes, one of them odd, in double precision.

    So that only what was changed counts: other widths are added up in another order.
    """
    first = copy.deepcopy(detector).cpu().double().eval()
    second = copy.deepcopy(small).cpu().double().eval()
    height, width = detector.trace_size
    generator = torch.Generator().manual_seed(1)
    drifts = [0.0]
    for size in ((height, width), (2 * height + 9, 3 * width + 27)):
        images = 60 * torch.randn((2, 3, *size), generator=generator, dtype=torch.float64)
        with torch.inference_mode():
            try:
                expected = first.maps(images)
            except RuntimeError:
                if size == detector.trace_size:
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
    detector: Detector, small: Detector, pictures: Iterable[Picture] | None
) -> tuple[int, float | None, float | None]:
    """Compare scores and offsets of all anchors on pictures at their own size."""
    if pictures is None:
        return 0, None, None
    first, second = copy.deepcopy(detector).eval(), copy.deepcopy(small).eval()
    reference = next(detector.parameters())
    count, scores, offsets = 0, 0.0, 0.0
    with torch.inference_mode():
        for picture in pictures:
            tensor = torch.as_tensor(picture).permute(2, 0, 1).unsqueeze(0).to(reference.device)
            images = first.prepare(tensor)
            one, other = first(images), second(images)
            drift = (one.logits.sigmoid() - other.logits.sigmoid()).abs().max()
            scores = max(scores, float(drift))
            offsets = max(offsets, float((one.offsets - other.offsets).abs().max()))
            count += 1
    return (count, scores, offsets) if count else (0, None, None)
