"""Geometry of a cascade: from cells to boxes to windows, from offsets to faces, and back.

Training encodes with the inverse of what detection decodes, so a net that answers its targets
finds the annotated boxes to the pixel, whichever of the published rules its spec follows. One
exception was published: where cells count from 1 (``cells: floor``), the first net answers in
fractions of the crop that it sees, and detection takes the box of a cell to begin a pixel of the
pyramid later. The next net gets to see these boxes in training, too.
"""

from dataclasses import dataclass

import numpy as np

from slimface.core.boxes import Indices
from slimface.core.faces import Floats
from slimface.core.spec import CELL_PX, CascadeSpec
from slimface.deploy.crops import Windows

CELL_STRIDE = 2


@dataclass(frozen=True, slots=True)
class Geometry:
    """The rules of a spec, on arrays of boxes ``(n, 4)``. Nets count from 0."""

    spec: CascadeSpec

    def cells(self, x: Indices, y: Indices, scale: float) -> Floats:
        """Return the boxes of cells of the first net, at a scale of the pyramid."""
        corner = CELL_STRIDE * np.stack([x, y], axis=1).astype(np.float32)
        first = np.float32(self.spec.cells == "floor")
        boxes = np.concatenate([corner + first, corner + CELL_PX], axis=1) / np.float32(scale)
        rounded: Floats = np.floor(boxes) if self.spec.cells == "floor" else np.rint(boxes)
        return rounded

    def windows(self, boxes: Floats, height: int, width: int) -> Windows:
        """Return which pixels of a picture a net gets to see of each box; at least one."""
        if self.spec.crop == "cut":
            corners = np.trunc(boxes).astype(np.int64)
            corners = np.clip(corners, 1, np.array([width, height] * 2))
            corners[:, :2] -= 1
        else:
            corners = np.rint(boxes).astype(np.int64)
            corners[:, 2:] += 1
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        return corners

    def boxes_of_windows(self, windows: Floats) -> Floats:
        """Return the boxes of which a net sees these windows: the inverse of ``windows``."""
        end = np.array([1, 1, 0, 0] if self.spec.crop == "cut" else [0, 0, -1, -1], np.float32)
        return windows + end

    def moved(self, boxes: Floats, offsets: Floats, net: int) -> Floats:
        """Return the boxes where a net's offsets put them."""
        return boxes + offsets * self._sides(boxes, net)

    def offsets(self, boxes: Floats, targets: Floats, net: int) -> Floats:
        """Return the offsets that move ``boxes`` to ``targets``: the inverse of ``moved``."""
        return (targets - boxes) / self._sides(boxes, net)

    def lopsidedness(self, boxes: Floats, windows: Windows, net: int) -> Floats:
        """Return by how much a box lies right of the middle of the window a net sees of it.

        Twice the distance, shape ``(n,)``, in the unit of the net's offsets. Offsets ``(x1, x2)``
        become ``(-x2 - lopsided, -x1 - lopsided)`` when window and face are mirrored.
        """
        ends = boxes[:, 0] + boxes[:, 2] + np.float32(self.spec.inclusive)
        apart: Floats = (ends - windows[:, 0] - windows[:, 2]) / self._sides(boxes, net)[:, 0]
        return apart.astype(np.float32)

    def landmarks(self, boxes: Floats, fractions: Floats) -> Floats:
        """Return points in pixels, shape ``(n, k, 2)``, from fractions of the box seen."""
        sides = self._sides(boxes, 2)[:, None, :2]
        points: Floats = boxes[:, None, :2] + fractions * sides - self._first_pixel
        return points

    def fractions(self, boxes: Floats, points: Floats) -> Floats:
        """Return points as fractions of the box: the inverse of ``landmarks``."""
        sides = self._sides(boxes, 2)[:, None, :2]
        fractions: Floats = (points - boxes[:, None, :2] + self._first_pixel) / sides
        return fractions

    def square(self, boxes: Floats) -> Floats:
        """Return the squares of the longer sides around the same centres."""
        pixel = np.float32(self.spec.inclusive)
        sides = boxes[:, 2:] - boxes[:, :2] + pixel
        longest = sides.max(axis=1, keepdims=True)
        corner = boxes[:, :2] + (sides - longest) * np.float32(0.5)
        squares: Floats = np.concatenate([corner, corner + longest - pixel], axis=1)
        return np.rint(squares) if self.spec.crop == "pad" else squares

    def with_end(self, boxes: Floats) -> Floats:
        """Return boxes of the cascade with the second corner beyond the last pixel."""
        return boxes + self._end if self.spec.inclusive else boxes

    def without_end(self, boxes: Floats) -> Floats:
        """Return annotated boxes as the cascade counts them: the inverse of ``with_end``."""
        return boxes - self._end if self.spec.inclusive else boxes

    def _sides(self, boxes: Floats, net: int) -> Floats:
        sides = boxes[:, 2:] - boxes[:, :2] + np.float32(self.spec.offset_pixels[net])
        return np.tile(sides, 2)

    @property
    def _first_pixel(self) -> np.float32:
        return np.float32(self.spec.crop == "cut")

    @property
    def _end(self) -> Floats:
        return np.array([0, 0, 1, 1], dtype=np.float32)
