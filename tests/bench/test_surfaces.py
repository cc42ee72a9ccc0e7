import numpy as np
import pytest

from slimface.bench.layers import Convolution, time_layers
from slimface.bench.surfaces import ALIGNMENT, Surface


def convolution(inputs: int, outputs: int, *, depthwise: bool = False) -> Convolution:
    return Convolution(
        inputs, outputs, (3, 3), (1, 1), (1, 1), (1, 1), depthwise, height=8, width=8
    )


def formula(layer: Convolution) -> float:
    """A runtime that takes inputs in a slow way of its own if they are no multiple of four."""
    slow = layer.inputs > 8 and layer.inputs % ALIGNMENT > 0
    return layer.inputs * layer.outputs * (3.0 if slow else 1.0)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (9, 12), (16, 16), (40, 33), (130, 70)])
def test_measured_widths_are_as_measured(inputs: int, outputs: int) -> None:
    surface = Surface(convolution(inputs, outputs))
    times = {point: formula(point) for point in surface.points()}
    table = surface.table(times)
    assert table.shape == (inputs + 1, outputs + 1)
    for point in times:
        if point.inputs <= inputs and point.outputs <= outputs:
            assert table[point.inputs, point.outputs] == pytest.approx(formula(point))


def test_widths_that_are_no_multiple_lie_on_a_curve_of_their_own() -> None:
    surface = Surface(convolution(40, 16))
    table = surface.table({point: formula(point) for point in surface.points()})
    assert table[30, 16] == pytest.approx(30 * 16 * 3)
    assert table[32, 16] == pytest.approx(32 * 16)


def test_a_width_takes_as_long_as_its_whole_block() -> None:
    surface = Surface(convolution(64, 64))
    table = surface.table({point: formula(point) for point in surface.points()})
    assert table[28, 20] == table[32, 24] > table[24, 24]


def test_a_depthwise_layer_has_one_width() -> None:
    surface = Surface(convolution(32, 32, depthwise=True))
    table = surface.table({point: float(point.outputs) for point in surface.points()})
    assert table.shape == (2, 33)
    assert np.allclose(table[1, [4, 16, 31, 32]], [4, 16, 31, 32])
    assert table[1, 20] == 24


def test_fixed_widths_are_measured_once() -> None:
    whole, fixed = Surface(convolution(3, 64)), Surface(convolution(3, 64), fixed_inputs=True)
    assert {point.inputs for point in fixed.points()} == {3}
    assert len(fixed.points()) < len(whole.points())


@pytest.mark.parametrize("depthwise", [False, True])
def test_more_work_takes_longer(*, depthwise: bool) -> None:
    small = convolution(8, 8, depthwise=depthwise)._replace(height=40, width=40)
    large = convolution(64, 64, depthwise=depthwise)._replace(height=40, width=40)
    told: dict[Convolution, float] = {}
    times = time_layers([small, large], finished=told.update)
    assert times == told
    assert 0 < times[small] < times[large]
