"""What EResFD and EXTD have from S3FD: six levels, one anchor a cell, heads of these names.

Source: Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017,
arXiv:1708.05237.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slimface.core.spec import DetectorSpec
from slimface.model.detector import Detector, RawTensors

LEVELS = 6


class S3fdDetector(Detector):
    """Six levels of strides 4 to 128, one anchor a cell."""

    head_names = tuple(f"{head}.{level}" for head in ("conf", "loc") for level in range(LEVELS))

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        self.conf: nn.ModuleList
        self.loc: nn.ModuleList

    def make_heads(self, channels: int, kernel: int) -> None:
        """Make ``loc`` and ``conf``, convolutions that keep the size of their level."""
        self.loc = nn.ModuleList(
            nn.Conv2d(channels, 4, kernel, padding=kernel // 2) for _ in range(LEVELS)
        )
        self.conf = nn.ModuleList(
            nn.Conv2d(channels, 4 if level == 0 else 2, kernel, padding=kernel // 2)
            for level in range(LEVELS)
        )

    def levels(self, images: Tensor) -> Sequence[Tensor]:
        """Return what the heads look at, finest level first."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return six maps of classes, then six of offsets, finest level first."""
        levels = self.levels(images)
        classes = [head(level) for head, level in zip(self.conf, levels, strict=True)]
        offsets = [head(level) for head, level in zip(self.loc, levels, strict=True)]
        return (*classes, *offsets)

    def read(self, maps: tuple[Tensor, ...]) -> RawTensors:
        """The finest level has three background classes, of which the strongest counts.

        Source: S3FD, section 3.3 (max-out).
        """
        logits = []
        for classes in maps[:LEVELS]:
            background = classes[:, :-1].amax(dim=1)
            logits.append((classes[:, -1] - background).flatten(1))
        offsets = [level.flatten(2).transpose(1, 2) for level in maps[LEVELS:]]
        return RawTensors(torch.cat(logits, dim=1), torch.cat(offsets, dim=1))
