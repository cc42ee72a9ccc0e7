"""Grid: what a file rounds, read from the file, and another file that rounds the same."""

from collections.abc import Collection
from typing import Any, NamedTuple

from slimface.compress.quantize.pairs import BEFORE_OUTPUT
from slimface.compress.quantize.qdq import Graph, How, short
from slimface.compress.quantize.settings import Rounding
from slimface.core.grid import GRID_KEY, Grid
from slimface.errors import UsageError


class Step(NamedTuple):
    """How a tensor is rounded: to ``scale * (0 … 255 - zero)``."""

    scale: float
    zero: int


def steps_of(made: Any) -> dict[str, Step]:
    """Return how a QDQ graph, an ``onnx.ModelProto``, rounds each tensor that is no weight."""
    from onnx import numpy_helper

    constants = {one.name: one for one in made.graph.initializer}
    steps = {}
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
            steps[node.input[0].removesuffix(BEFORE_OUTPUT)] = Step(float(scale), int(zero))
    return steps


def grid_of(graph: Graph, layers: Collection[str], how: How, asked: Rounding) -> Grid:
    """Return the grid of a graph in eight bits.

    Args:
        graph: In float32; it has looked at its inputs.
        layers: Nodes whose weights are rounded.
        how: Its arithmetic.
        asked: The settings by which it was chosen.
    """
    makers = graph.makers
    return Grid(
        layers=tuple(layers),
        ranges={makers[tensor]: ends for tensor, ends in graph.reach(how.ranges).items()},
        bits=4 if how.bits == 4 else 8,
        eight=tuple(name for name in layers if name in how.eight),
        reduce_range=how.reduce_range,
        asked=asked.model_dump(mode="json", include=set(Rounding.model_fields)),
    )


def learnt_on(model: Any) -> Grid | None:
    """Return the grid that a float graph's weights have learnt on; None: they have not."""
    said = {one.key: one.value for one in model.metadata_props}
    return Grid.parse(said[GRID_KEY], where=GRID_KEY) if GRID_KEY in said else None


def on_grid(graph: Graph, grid: Grid) -> Any:
    """Return a float graph as a QDQ graph of the same layers and ranges as the grid's.

    Raises:
        UsageError: The graph has not the layers and tensors that the grid has.
    """
    tensors = {maker: tensor for tensor, maker in graph.makers.items()}
    absent = [name for name in grid.layers if name not in graph.layers]
    absent += [maker for maker in grid.ranges if maker not in tensors]
    if absent:
        raise UsageError(
            f"The weights have learnt with rounding at {short(absent[0])} and {len(absent) - 1} "
            "other places that the exported graph does not have.\n"
            "Export and quantise with the slimface and torch that they were trained with, or train "
            "them again."
        )
    reach = {tensors[maker]: ends for maker, ends in grid.ranges.items()}
    return graph.quantized(grid.layers, how_learnt(grid), reach=reach)


def how_learnt(grid: Grid) -> How:
    """Return the arithmetic of a grid."""
    return How(reduce_range=grid.reduce_range, bits=grid.bits, eight=frozenset(grid.eight))


def check_agree(grid: Grid, settings: Rounding) -> None:
    """Refuse settings that ask for something else than the weights have learnt with.

    Raises:
        UsageError: Naming the setting; those left at their defaults ask for nothing.
    """
    learnt = Rounding.model_validate(grid.asked)
    for name, field in Rounding.model_fields.items():
        wanted, given = getattr(settings, name), getattr(learnt, name)
        if wanted not in (given, field.default):
            raise UsageError(
                f"The weights have learnt with {name} {given}, and quantize asks for {wanted}.\n"
                f"Say {name} in the qat step; quantize writes what was trained."
            )
