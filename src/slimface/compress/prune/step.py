"""Prune: the step that removes channels."""

import logging
from typing import Any, Literal

from slimface.compress.prune.allocate import Uniform, choose
from slimface.compress.prune.importance import Fpgm, Importance, importances
from slimface.core.value import Value
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.model.profile import profile
from slimface.model.surgery import remove_channels
from slimface.step import Context

log = logging.getLogger(__name__)


class Prune(Value):
    """Remove the least important channels of all coupled groups, for good.

    The tensors become smaller; what trains the result afterwards has to make its optimizer after
    this step, which a following ``train`` step does.
    """

    kind: Literal["prune"] = "prune"
    importance: Importance = Fpgm()
    allocator: Uniform

    height_px: int = 480
    """Input height at which the record states MACs."""

    width_px: int = 640

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return a detector with fewer channels."""
        groups = channel_groups(detector)
        removed = self.allocator(groups)
        keep = choose(importances(detector, groups, self.importance), removed)
        pruned = remove_channels(detector, keep, groups=groups)
        context.record("prune", self._report(detector, pruned, groups, removed))
        return pruned

    def _report(
        self,
        before: Detector,
        after: Detector,
        groups: tuple[ChannelGroup, ...],
        removed: dict[str, int],
    ) -> dict[str, Any]:
        first = profile(before, self.height_px, self.width_px)
        last = profile(after, self.height_px, self.width_px)
        log.info(
            "parameters %d -> %d, MACs %.1f M -> %.1f M",
            first.parameters,
            last.parameters,
            first.macs / 1e6,
            last.macs / 1e6,
        )
        return {
            "importance": self.importance.kind,
            "input": [self.height_px, self.width_px],
            "before": first.model_dump(mode="json"),
            "after": last.model_dump(mode="json"),
            "groups": [
                {
                    "name": group.name,
                    "before": group.size,
                    "after": group.size - removed[group.name],
                    "layers": [member.module for member in group.members if member.side == "out"],
                }
                for group in groups
                if group.prunable
            ],
            "uncut": [
                {"name": group.name, "size": group.size, "reason": group.reason}
                for group in groups
                if not group.prunable
            ],
        }
