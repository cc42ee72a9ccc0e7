"""Allocation: how many channels each group loses."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor

from slimface.core.value import Value
from slimface.model.channels import ChannelGroup

Keep = Mapping[str, npt.NDArray[np.intp]]
"""The channels that stay, ascending, by the name of the group."""


class Uniform(Value):
    """The same rate for every group."""

    kind: Literal["uniform"] = "uniform"
    rate: float = Field(gt=0, lt=1)
    """Share of the channels to remove."""

    multiple_of: int = Field(default=1, gt=0)
    """Widths that stay are rounded up to a multiple of this: runtimes compute in blocks."""

    rounding: Literal["nearest", "down"] = "nearest"
    """Of the number removed. ``down`` is what the published systems do: 10 % of 8 is none."""

    def __call__(self, groups: Sequence[ChannelGroup]) -> dict[str, int]:
        """Return the number of channels to remove from each prunable group."""
        return {group.name: self._removed(group.size) for group in groups if group.prunable}

    def _removed(self, size: int) -> int:
        # Half a thousandth forgives what binary fractions lose of rates like 0.3.
        exact = self.rate * size
        removed = int(exact + 0.5) if self.rounding == "nearest" else int(exact + 5e-4)
        kept = max(size - removed, 1)
        if self.multiple_of > 1:
            kept = min(-(-kept // self.multiple_of) * self.multiple_of, size)
        return size - kept


Allocator = Annotated[Uniform, Field(discriminator=None)]


def choose(
    scores: Mapping[str, Tensor], removed: Mapping[str, int]
) -> dict[str, npt.NDArray[np.intp]]:
    """Return the channels that stay when each group loses its least important ones."""
    keep = {}
    for name, count in removed.items():
        if count:
            order = np.argsort(scores[name].cpu().numpy(), kind="stable")
            keep[name] = np.sort(order[count:])
    return keep
