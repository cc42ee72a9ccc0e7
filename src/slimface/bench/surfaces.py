"""Surfaces: the time of a layer at any widths, from measurements at some.

ONNX Runtime computes in blocks of 8 or 16 channels if the width is a multiple of 4, and in another,
often slower way if not. So the widths that are and those that are not lie on curves of their own.
On the first, a width counts as the next multiple of 8; between measured widths, time is linear.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slimface.bench.layers import Convolution

Floats = npt.NDArray[np.float64]

ALIGNMENT = 4
"""Widths that are no multiple of this are computed in another way."""

BLOCK = 8
"""The smallest block: up to so many channels take as long as that many."""


class _Curve(NamedTuple):
    """A way of computing: the widths that go it, and those of them that are measured."""

    knots: tuple[int, ...]
    widths: npt.NDArray[np.intp]
    in_blocks: bool

    def counted(self, widths: npt.NDArray[np.intp]) -> Floats:
        """Return what widths count as on this curve."""
        if not self.in_blocks:
            return widths.astype(np.float64)
        return np.where(widths > 2 * BLOCK, -(-widths // BLOCK) * BLOCK, widths).astype(np.float64)


class Surface(NamedTuple):
    """The widths that a layer can have."""

    layer: Convolution
    """At its largest."""

    fixed_inputs: bool = False
    fixed_outputs: bool = False

    def points(self) -> list[Convolution]:
        """Return the layers that have to be measured."""
        return [
            layer for curve in self._curves() for row in self._layers(curve.knots) for layer in row
        ]

    def table(self, times: Mapping[Convolution, float]) -> Floats:
        """Return the milliseconds at all widths, shape ``(inputs + 1, outputs + 1)``.

        The inputs of a depthwise layer, which are as many as its outputs, do not count there:
        ``(2, outputs + 1)``. Nothing is known of no channels: index 0 is 0.
        """
        layer = self.layer
        outputs = np.arange(layer.outputs + 1)
        table = np.zeros((2 if layer.depthwise else layer.inputs + 1, layer.outputs + 1))
        for curve in self._curves():
            known = np.array([[times[one] for one in row] for row in self._layers(curve.knots)])
            if layer.depthwise:
                found = np.interp(curve.counted(curve.widths), curve.knots, known[:, 0])
                table[:, curve.widths] = found
                continue
            counted = curve.counted(outputs)
            rows = np.array([np.interp(counted, self._outputs(), row) for row in known])
            counted = curve.counted(curve.widths)
            columns = [np.interp(counted, curve.knots, column) for column in rows.T]
            table[curve.widths] = np.array(columns).T
        table[0] = table[:, 0] = 0
        return table

    def _curves(self) -> list[_Curve]:
        """The ways of computing, by the width that decides: the inputs, where they are mixed."""
        depthwise = self.layer.depthwise
        most = self.layer.outputs if depthwise else self.layer.inputs
        widths = np.arange(most + 1)
        if self.fixed_outputs if depthwise else self.fixed_inputs:
            return [_Curve((most,), widths, in_blocks=True)]
        # So few inputs are read as they are, without blocks; a depthwise layer has no such way.
        aligned = (widths % ALIGNMENT == 0) | (widths <= (0 if depthwise else BLOCK))
        curves = [_Curve(_knots(most), widths[aligned], in_blocks=True)]
        if not aligned.all():
            knots = _odd_knots(most, 1 if depthwise else BLOCK + 1)
            curves.append(_Curve(knots, widths[~aligned], in_blocks=False))
        return curves

    def _layers(self, knots: tuple[int, ...]) -> list[list[Convolution]]:
        if self.layer.depthwise:
            return [[self.layer._replace(inputs=knot, outputs=knot)] for knot in knots]
        return [
            [self.layer._replace(inputs=inputs, outputs=outputs) for outputs in self._outputs()]
            for inputs in knots
        ]

    def _outputs(self) -> tuple[int, ...]:
        return (self.layer.outputs,) if self.fixed_outputs else _knots(self.layer.outputs)


def _knots(most: int) -> tuple[int, ...]:
    """Widths up to ``most``, rounded up to a block: dense where a channel weighs much."""
    last = most if most <= 2 * BLOCK else -(-most // BLOCK) * BLOCK
    knots = {1, 2, 4, 8, 12, 16, *range(24, 65, 8), *range(80, 129, 16), *range(160, last, 32)}
    return (*sorted(knot for knot in knots if knot < last), last)


def _odd_knots(most: int, least: int) -> tuple[int, ...]:
    last = most if most % ALIGNMENT else most - 1
    knots = {least, 9, 15, *(2**power + 1 for power in range(4, most.bit_length()))}
    return (*sorted(knot for knot in knots if least <= knot < last), last)
