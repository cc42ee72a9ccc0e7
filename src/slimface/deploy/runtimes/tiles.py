"""Tiles: the first net of a cascade in a file that takes one size, shown pictures of any size."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from slimface.core.faces import Floats
from slimface.core.spec import CELL_PX, CascadeSpec
from slimface.deploy.cascade_geometry import CELL_STRIDE
from slimface.deploy.pipeline import Network, RawFaces
from slimface.errors import CheckpointError


class _Strip(NamedTuple):
    """What one tile is good for, along one axis."""

    first: int
    last: int
    """Cells of the picture, the last one excluded."""

    origin: int
    """Where the tile begins in the picture, in pixels; below 0 if it reaches out of it."""


class Tiled:
    """A first net whose file takes one size of picture, given pictures of any size.

    Tiles overlap, so that each cell sees the pixels that it would see in the whole picture: the
    answers are the same. Where pools round up, the last cell of an odd side sees fewer pixels;
    so does that of a tile with an odd side that ends where the picture ends.

    Raises:
        CheckpointError: Pools round up, and a side of the tile is even.
    """

    def __init__(self, network: Network, canvas: tuple[int, int], spec: CascadeSpec) -> None:
        rounds_up = spec.cells_along(CELL_PX + 1) > 1
        if min(canvas) < CELL_PX or (rounds_up and any(side % 2 == 0 for side in canvas)):
            height, width = canvas
            raise CheckpointError(
                f"The first net of {spec.name} takes pictures of {width}x{height} only; pyramids "
                f"are cut into tiles, whose sides must be {'odd' * rounds_up} and {CELL_PX} or "
                "more.\nExport the whole cascade: its first net then has such a size, or any."
            )
        self.network = network
        self.canvas = canvas
        self.spec = spec

    def __call__(self, images: Floats) -> RawFaces:
        rows, columns = (self.spec.cells_along(side) for side in images.shape[2:])
        logits = np.empty((len(images), rows, columns), np.float32)
        offsets = np.empty((len(images), rows, columns, 4), np.float32)
        for i, image in enumerate(images):
            for down in self._strips(image.shape[1], self.canvas[0]):
                for across in self._strips(image.shape[2], self.canvas[1]):
                    found = self._answer(image, down, across)
                    place = i, slice(down.first, down.last), slice(across.first, across.last)
                    logits[place], offsets[place] = found
        return RawFaces(logits.reshape(len(images), -1), offsets.reshape(len(images), -1, 4), None)

    def _answer(self, image: Floats, down: _Strip, across: _Strip) -> tuple[Floats, Floats]:
        """Logits and offsets of the cells that a tile is good for."""
        tile = np.zeros((1, 3, *self.canvas), np.float32)
        (y, top), (x, left) = (_overlap(strip.origin) for strip in (down, across))
        seen = image[:, y : down.origin + self.canvas[0], x : across.origin + self.canvas[1]]
        tile[0, :, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
        raw = self.network(tile)
        assert isinstance(raw, RawFaces)
        cells = tuple(self.spec.cells_along(side) for side in self.canvas)
        place = _cells_of(down), _cells_of(across)
        return raw.logits.reshape(cells)[place], raw.offsets.reshape(*cells, 4)[place]

    def _strips(self, length: int, side: int) -> Iterator[_Strip]:
        """Divide the cells along a side of a picture between tiles."""
        cells = self.spec.cells_along(length)
        whole = (length - CELL_PX) // CELL_STRIDE + 1
        in_tile = (side - CELL_PX) // CELL_STRIDE + 1
        origin = length - side
        end = whole if cells == whole else max(origin // CELL_STRIDE, 0)
        for first in range(0, end, in_tile):
            yield _Strip(first, min(first + in_tile, end), CELL_STRIDE * first)
        if cells > whole:
            yield _Strip(end, cells, origin)


def _overlap(origin: int) -> tuple[int, int]:
    """Where the pixels that are there begin: in the picture, and in the tile."""
    return max(origin, 0), max(-origin, 0)


def _cells_of(strip: _Strip) -> slice:
    """The cells of the tile."""
    before = strip.origin // CELL_STRIDE
    return slice(strip.first - before, strip.last - before)
