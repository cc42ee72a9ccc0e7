"""Norms: the statistics of batch norms, taken anew from pictures."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.model.network import Network


@torch.no_grad()
def recalibrate_(network: Network, pictures: Iterable[Tensor]) -> None:
    """Replace the statistics of all batch norms by those over some pictures.

    Args:
        network: Changed in place, and left in evaluation mode.
        pictures: 8-bit RGB, shape ``(b, 3, height, width)`` each; all batches weigh the same. If
            there are none, the statistics stay.
    """
    device = next(network.parameters()).device
    network.eval()
    batches = list(pictures)
    if not batches:
        return
    with _estimating(network):
        for images in batches:
            given = network.prepare(images.to(device))
            network.maps(given.contiguous(memory_format=torch.channels_last))


@contextmanager
def _estimating(network: Network) -> Iterator[None]:
    norms = [
        layer
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain mean over all batches since the reset.
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        network.eval()
