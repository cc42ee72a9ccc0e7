"""Shrink: the step that removes zeroed filters for good, with the same outputs."""

import logging
from typing import Literal, TypeVar

from slimface.compress.shrink.shrinking import shrink
from slimface.core.value import Value
from slimface.data.folders import ClassSource
from slimface.deploy.media import read_picture
from slimface.model.network import Network
from slimface.order import FLOAT, ZEROED, Terms
from slimface.step import Context

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)

PICTURES = 8
"""Pictures on which folding is measured."""


class Shrink(Value):
    """Make a masked network physically smaller; what its zeroed filters still send on is carried.

    Nothing is lost, so it may stand behind any step that zeroes filters, and behind any training.
    """

    kind: Literal["shrink"] = "shrink"
    fold: bool = False
    """Add what zeroed filters send on to the next layer's bias: smaller still, and wrong at the
    borders of maps. The largest difference on validation pictures is recorded."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(needs=frozenset({FLOAT, ZEROED}), takes=frozenset({ZEROED}))

    def __call__(self, detector: N, context: Context) -> N:
        """Return the smaller network.

        Raises:
            TraceError: The channels of the detector cannot be followed.
            UsageError: There is no zeroed filter.
        """
        source, pictures = context.source, None
        if source is not None:
            if isinstance(source, ClassSource):
                paths = [one.path for one in source.labelled("val")]
            else:
                paths = [one.path for one in source.pictures("val")]
            stride = max(len(paths) // PICTURES, 1)
            pictures = [read_picture(path) for path in paths[::stride][:PICTURES]]
        found = shrink(detector, exact=not self.fold, pictures=pictures)
        context.record("shrink", found.report)
        log.info("%d zeroed filters removed", found.report.removed)
        return found.network
