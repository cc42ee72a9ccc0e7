"""Reinit: keep the widths that a pruning has found, and forget the weights."""

import math
from typing import Literal

from torch import Tensor

from slimface.core.value import Value
from slimface.model.build import build
from slimface.model.checkpoint import restore
from slimface.model.detector import Detector
from slimface.order import FLOAT, LEARNT, NORMS, ZEROED, Terms
from slimface.step import Context

_MATRIX = 2
"""Dimensions from which on a tensor mixes inputs."""


class Reinit(Value):
    """Give a detector new random weights, drawn from the seed; its widths stay.

    What trains it afterwards tells whether a pruning has found good weights or good widths.

    Source: Liu et al., "Rethinking the Value of Network Pruning", ICLR 2019, arXiv:1810.05270.
    """

    kind: Literal["reinit"] = "reinit"

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(needs=frozenset({FLOAT, NORMS}), takes=frozenset({LEARNT, ZEROED}))

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return a detector of the same widths that has learnt nothing."""
        wanted = detector.state_dict()
        fresh = build(detector.spec, seed=context.seed).state_dict()
        tensors = {name: _cropped(tensor, wanted[name]) for name, tensor in fresh.items()}
        found = restore(detector.spec, tensors, where="the new weights")
        return found.to(next(detector.parameters()).device)


def _cropped(tensor: Tensor, like: Tensor) -> Tensor:
    """The first rows and columns, as large in sum for each output as the whole would be."""
    cut = tensor[tuple(slice(length) for length in like.shape)].clone()
    if tensor.dim() < _MATRIX or cut.numel() == 0:
        return cut
    return cut * math.sqrt(tensor.shape[1] / cut.shape[1])
