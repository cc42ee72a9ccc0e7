"""One cell of the grid detector x importance x rate: what has to hold whenever channels go."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from slimface.compress.prune.allocate import Uniform, choose
from slimface.compress.prune.importance import Importance, importances
from slimface.compress.prune.probe import Probe
from slimface.model import checkpoint
from slimface.model.channels import ChannelGroup
from slimface.model.cost import cost_model
from slimface.model.network import Network
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels, silence_

IMPORTANCES = tuple(kind() for kind in get_args(get_args(Importance)[0]))
"""All there are, as they are by default."""

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one pruning."""

    narrow: Network
    parameters: float
    """What is left, as a share of what there was."""

    macs: float
    furthest: float
    """Largest difference from the silenced network, as a share of the largest output."""


def maps_of(network: Network, seed: int = 7) -> tuple[Tensor, ...]:
    """What the network says about noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (2, 3, *network.trace_size), generator=generator)
    with torch.inference_mode():
        return network.maps(network.prepare(noise))


def pruned(
    network: Network,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    rate: float,
    probe: Probe | None,
    folder: Path,
) -> Cell:
    """Prune, and hold the result to all laws.

    Raises:
        AssertionError: One of them is broken.
    """
    height, width = network.trace_size
    costs = cost_model(network, groups, height, width)
    scores = importances(network, groups, importance, probe)
    removed = Uniform(rate=rate)(groups, scores, costs)
    keep = choose(scores, removed)
    narrow = remove_channels(network, keep, groups=tuple(groups))
    silent = copy.deepcopy(network)
    silence_(silent, keep, groups=tuple(groups))
    furthest = 0.0
    for one, other in zip(maps_of(narrow), maps_of(silent), strict=True):
        assert one.shape == other.shape and bool(one.isfinite().all())
        furthest = max(furthest, float((one - other).abs().max() / other.abs().max().clamp(min=1)))
    assert furthest <= 1e-4, f"removed and silenced differ by {furthest:.1e}"

    before, after = profile(network, height, width), profile(narrow, height, width)
    widths = [
        size - removed[name] for name, size in zip(costs.names, costs.sizes.tolist(), strict=True)
    ]
    assert after.parameters == costs.count("params", widths)
    assert after.macs == costs.count("macs", widths)
    assert after.parameters < before.parameters and after.macs < before.macs

    path = folder / "narrow.safetensors"
    checkpoint.save(narrow, path)
    again = checkpoint.load_checkpoint(path).network
    assert checkpoint.fingerprint(again) == checkpoint.fingerprint(narrow)
    for one, other in zip(maps_of(again), maps_of(narrow), strict=True):
        assert torch.equal(one, other)
    return Cell(narrow, after.parameters / before.parameters, after.macs / before.macs, furthest)
