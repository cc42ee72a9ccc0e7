"""Sensitivity: what the loss becomes when one group alone loses channels.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710, figure 2.
Here the channels of a coupled group are silenced, which is as good as removing them (a law of
``slimface.model.surgery``) and takes no surgery.
"""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slimface.compress.prune.probe import Probe
from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.files import home, write_text
from slimface.model.channels import ChannelGroup
from slimface.model.checkpoint import fingerprint
from slimface.model.network import Network
from slimface.model.surgery import silence_

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

RATES = tuple(round(0.1 * i, 1) for i in range(1, 10))

_BARS = "▁▂▃▄▅▆▇█"


class Curve(Value):
    """The loss at each rate of one group."""

    group: str
    size: int
    rates: tuple[float, ...]
    """Shares of the channels that are silent, as they come out in whole channels, rising."""

    losses: tuple[float, ...]


class Sensitivities(Value):
    """How every group that can be cut takes it."""

    whole: float
    """The loss of the whole detector."""

    curves: tuple[Curve, ...]

    def rise(self, group: int, rates: Floats) -> Floats:
        """Return by how much the loss of a group rises at these rates, never falling with them.

        Between measured rates it is linear, and it starts at 0.
        """
        curve = self.curves[group]
        rises = np.maximum.accumulate(np.maximum(np.array(curve.losses) - self.whole, 0.0))
        risen: Floats = np.interp(rates, (0.0, *curve.rates), (0.0, *rises))
        return risen

    def said(self, loss: float) -> str:
        """Return by how much a loss is higher than the whole detector's, for people."""
        return f"{100 * (loss / max(self.whole, 1e-12) - 1):+.1f} %"

    def sparkline(self, curve: Curve) -> str:
        """Return the curve as a row of bars, on one scale for all: a doubled loss is full."""
        share = [(loss - self.whole) / max(self.whole, 1e-12) for loss in curve.losses]
        return "".join(_BARS[int(np.clip(one, 0, 1) * (len(_BARS) - 1))] for one in share)


def sensitivities(
    detector: Network,
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    probe: Probe,
    *,
    rates: Sequence[float] = RATES,
    track: Callable[..., Iterable[Any]] = lambda items, _description, **_: items,
) -> Sensitivities:
    """Silence the least valuable channels of each group in turn, and look at pictures.

    What was found before for the same weights, pictures, scores and rates is not measured again.

    Args:
        detector: Unchanged.
        groups: ``channel_groups(detector)``.
        scores: The value of every channel, by the name of its group.
        probe: Pictures that stand for all, and the loss.
        rates: Shares to silence, between 0 and 1.
        track: May draw a bar over the groups.

    Raises:
        UsageError: There are no pictures, or a rate is none.
    """
    if not probe.batches or not rates or not all(0 < rate < 1 for rate in rates):
        raise UsageError(
            "Sensitivity needs pictures, and rates between 0 and 1.\nName pictures with --data DIR."
        )
    free = [group for group in groups if group.prunable]
    kept = _place(detector, free, scores, probe, rates)
    if kept.exists():
        return Sensitivities.parse(kept.read_text(encoding="utf-8"), where=str(kept))
    still = copy.deepcopy(detector).eval()
    whole = _loss(still, probe)
    curves = []
    for group in track(free, "silencing groups", total=len(free)):
        order = np.argsort(scores[group.name].cpu().numpy(), kind="stable")
        counts = sorted({min(max(round(rate * group.size), 1), group.size - 1) for rate in rates})
        losses = []
        for count in filter(None, counts):
            restore = silence_(still, {group.name: np.sort(order[count:])}, groups=tuple(groups))
            losses.append(_loss(still, probe))
            restore()
        shares = [round(count / group.size, 6) for count in counts if count]
        curves.append(
            Curve(group=group.name, size=group.size, rates=tuple(shares), losses=tuple(losses))
        )
    found = Sensitivities(whole=whole, curves=tuple(curves))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, found.model_dump_json())
    return found


def _loss(detector: Network, probe: Probe) -> float:
    device = next(detector.parameters()).device
    total = 0.0
    with torch.no_grad():
        for batch in probe.batches:
            raw = detector(detector.prepare(batch.images.to(device)))
            total += float(probe.criterion(detector, raw, batch).total)
    # A loss that is infinite is worse than any, and JSON has no word for it.
    return round(float(np.nan_to_num(total / len(probe.batches), nan=1e9, posinf=1e9)), 6)


def _place(
    detector: Network,
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    probe: Probe,
    rates: Sequence[float],
) -> Path:
    digest = hashlib.sha256(fingerprint(detector).encode())
    digest.update(json.dumps([repr(probe.criterion), list(rates)]).encode())
    for group in groups:
        digest.update(scores[group.name].cpu().numpy().tobytes())
    for batch in probe.batches:
        digest.update(batch.images.cpu().numpy().tobytes())
    return home() / "sensitivity" / f"{digest.hexdigest()[:24]}.json"
