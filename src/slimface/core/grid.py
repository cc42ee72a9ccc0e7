"""Grid: the whole numbers that a network has learnt to live with."""

from collections.abc import Mapping
from typing import Any, Literal

from slimface.core.value import Value

GRID_KEY = "slimface.grid"
"""In the metadata of a float ONNX file: the grid that its weights have learnt on, as JSON."""


class Grid(Value):
    """What of a network is rounded, and from where to where: all that its file needs to know.

    Layers and tensors go by the names of ONNX nodes, which are the same however often a network is
    exported; scales of weights follow the weights.
    """

    layers: tuple[str, ...]
    """Nodes whose weights are whole numbers."""

    ranges: Mapping[str, tuple[float, float]]
    """What each tensor reaches from and to if it has eight bits, by the node that makes it (behind
    a colon, which of its outputs), or by its own name if the network is given it."""

    bits: Literal[4, 8] = 8
    """Of weights."""

    eight: tuple[str, ...] = ()
    """Those of ``layers`` whose weights have eight bits though ``bits`` says four."""

    reduce_range: bool = False
    """Whether eight bits of weights use seven of them."""

    asked: Mapping[str, Any] = {}
    """The settings by which all this was chosen."""

    weights: str = ""
    """Digest of the weights that have learnt on it: for others it means nothing."""
