"""Anchors: the reference boxes of a detector's cells, and how offsets become boxes.

Arithmetic here works on NumPy arrays and on torch tensors alike (both offer the functions of the
array API standard), so training, export and deployment share one definition; torch is never
imported from here.
"""

import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import Field

from slimface.core.faces import Floats
from slimface.core.value import Value


class AnchorLevel(Value):
    """One feature map and the anchors of its cells."""

    stride: int = Field(gt=0)
    """Pixels of the input per cell: an input of height H gives ``ceil(H / stride)`` rows."""

    sizes: tuple[float, ...]
    """Widths of the anchors of each cell, in pixels of the input."""

    step: int | None = None
    """Pixels between the centres of neighbouring anchors where that is not the stride."""

    def rows_and_columns(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Return the map's height and width for an input of this size."""
        # Not -(-height // stride): ONNX rounds integer division towards zero.
        return (height + self.stride - 1) // self.stride, (width + self.stride - 1) // self.stride


class AnchorGrid(Value):
    """All anchors of a detector: level by level, row by row, column by column, size by size."""

    levels: tuple[AnchorLevel, ...]
    height_per_width: float = Field(default=1.0, gt=0)
    """Anchors are this many times as high as wide."""

    centre: float = Field(default=0.5, ge=0, le=1)
    """Where in its cell an anchor is centred: 0 is the upper left corner, 0.5 the middle."""

    clip: bool = False
    """Clamp centres and sides to the input, as some published RetinaFace configurations do."""

    def anchors(self, height: int, width: int) -> Floats:
        """Return centre x, centre y, width, height in input pixels, shape ``(n, 4)``, read-only."""
        if self.count(height, width) > _MOST_KEPT:
            return _anchors.__wrapped__(self, height, width)
        return _anchors(self, height, width)

    def anchors_in(self, namespace: ModuleType, height: Any, width: Any) -> Any:
        """The same in another array library; sizes may be symbolic (torch.export)."""
        xp = namespace
        parts = []
        for level in self.levels:
            rows, columns = level.rows_and_columns(height, width)
            step = level.step or level.stride
            count = len(level.sizes)
            y = ((xp.arange(rows, dtype=xp.float32) + self.centre) * step).reshape(-1, 1, 1)
            x = ((xp.arange(columns, dtype=xp.float32) + self.centre) * step).reshape(1, -1, 1)
            one = xp.ones((rows, columns, count), dtype=xp.float32)
            side = xp.asarray(level.sizes, dtype=xp.float32).reshape(1, 1, -1) * one
            cell = xp.stack([x * one, y * one, side, side * self.height_per_width], axis=-1)
            parts.append(cell.reshape(-1, 4))
        anchors = xp.concat(parts, axis=0)
        if self.clip:
            limits = xp.asarray([width, height, width, height], dtype=xp.float32)
            anchors = xp.minimum(xp.maximum(anchors, 0 * limits), limits)
        return anchors

    def count(self, height: int, width: int) -> int:
        """Return the number of anchors for an input of this size."""
        total = 0
        for level in self.levels:
            rows, columns = level.rows_and_columns(height, width)
            total += rows * columns * len(level.sizes)
        return total


_MOST_KEPT = 2**19
"""Anchors of larger inputs (8 MB each) are made again every time, so that memory stays bounded."""


@lru_cache(maxsize=64)
def _anchors(grid: AnchorGrid, height: int, width: int) -> Floats:
    anchors: Floats = np.ascontiguousarray(grid.anchors_in(np, height, width))
    anchors.setflags(write=False)
    return anchors


class BoxCodec(Value):
    """Offsets relative to anchors, scaled by two variances.

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325,
    equation 2; the variances are those of its published code.
    """

    centre_variance: float = Field(default=0.1, gt=0)
    size_variance: float = Field(default=0.2, gt=0)

    def encode(self, boxes: Any, anchors: Any) -> Any:
        """Return the offsets ``(..., 4)`` that lead from ``anchors`` to corner boxes ``boxes``."""
        xp = _namespace(boxes)
        sides = boxes[..., 2:] - boxes[..., :2]
        centres = (boxes[..., :2] + boxes[..., 2:]) * 0.5
        shift = (centres - anchors[..., :2]) / (self.centre_variance * anchors[..., 2:])
        growth = xp.log(sides / anchors[..., 2:]) / self.size_variance
        return xp.concat([shift, growth], axis=-1)

    def decode(self, offsets: Any, anchors: Any) -> Any:
        """Return the corner boxes ``(..., 4)`` that ``offsets`` describe; inverse of ``encode``."""
        xp = _namespace(offsets)
        centres = anchors[..., :2] + offsets[..., :2] * self.centre_variance * anchors[..., 2:]
        half = anchors[..., 2:] * xp.exp(offsets[..., 2:] * self.size_variance) * 0.5
        return xp.concat([centres - half, centres + half], axis=-1)

    def encode_points(self, points: Any, anchors: Any) -> Any:
        """Return offsets of landmarks ``(..., k, 2)`` from anchors ``(..., 4)``."""
        return (points - anchors[..., None, :2]) / (self.centre_variance * anchors[..., None, 2:])

    def decode_points(self, offsets: Any, anchors: Any) -> Any:
        """Return the landmarks ``(..., k, 2)`` that offsets of the same shape describe."""
        return anchors[..., None, :2] + offsets * self.centre_variance * anchors[..., None, 2:]


def _namespace(array: Any) -> ModuleType:
    """The library an array belongs to: numpy, or torch where somebody else has imported it."""
    return sys.modules[type(array).__module__.partition(".")[0]]
