"""Sensitive layers: which of them have to stay in float32, found by measurement.

Each layer is quantised alone, and the noise that this brings to the outputs is measured on the
calibration pictures. Noises add up, so the loudest layers are left in float32, as few as will do.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from slimface.compress.quantize.qdq import Graph, How, runner, short
from slimface.compress.quantize.ranges import METHODS, Method
from slimface.compress.quantize.settings import Quantization
from slimface.core.faces import Floats
from slimface.core.value import Value

log = logging.getLogger(__name__)

INPUTS = 4
"""So many inputs tell one layer from the other."""

CEILING_DB = 120.0
"""What counts as no noise at all."""


def _no_bar(items: Iterable[Any], description: str, total: int | None = None) -> Iterable[Any]:
    return items


class Sensitivity(Value):
    """What one layer costs if it alone is quantised."""

    layer: str
    sqnr_db: float
    """Signal over noise of the output that suffers most."""


class Noise:
    """Measures what quantising does to the outputs of one graph."""

    def __init__(self, graph: Graph, inputs: Sequence[Floats]) -> None:
        stride = max(len(inputs) // INPUTS, 1)
        self.inputs = list(inputs)[::stride][:INPUTS]
        run = runner(graph.model)
        self._exact = [run(images) for images in self.inputs]

    def sqnr_db(self, model: Any) -> float:
        """Return signal over noise of the output that suffers most, in decibels.

        The signal is how far the values of an output are from their mean: a constant tells nothing.
        """
        return self.of(runner(model))

    def of(self, run: Callable[[Floats], Sequence[Floats]]) -> float:
        """As ``sqnr_db``, for anything that gives the outputs of one input."""
        found = [run(images) for images in self.inputs]
        worst = CEILING_DB
        for output in range(len(self._exact[0])):
            signal = noise = 0.0
            for exact, given in zip(self._exact, found, strict=True):
                wanted = exact[output].astype(np.float64)
                signal += float(np.square(wanted - wanted.mean()).sum())
                noise += float(np.square(given[output] - wanted).sum())
            if noise > 0:
                worst = min(worst, float(10 * np.log10(max(signal, 1e-30) / noise)))
        return worst


def best_way(
    graphs: Mapping[bool, Graph], noise: Noise, settings: Quantization
) -> tuple[Graph, How, bool]:
    """Return the graph and the arithmetic that disturb the outputs least, and if it is equalised.

    Args:
        graphs: The float graph as it is (False) and equalised (True), those that may be chosen.
        noise: What measures.
        settings: What is left open is tried out.
    """
    ranges: Sequence[Method] = METHODS if settings.ranges == "best" else (settings.ranges,)
    corrects = (False, True) if settings.correct is None else (settings.correct,)
    ways = [
        (even, How(one, correct, settings.reduce_range, settings.bits))
        for even in graphs
        for one in ranges
        for correct in corrects
    ]
    if len(ways) == 1:
        even, how = ways[0]
    else:
        found = {
            (even, how): noise.sqnr_db(graphs[even].quantized(graphs[even].layers, how))
            for even, how in ways
        }
        even, how = max(found, key=lambda way: found[way])
        log.info(
            "ranges by %s%s%s: %.1f dB if all layers are quantised",
            how.ranges,
            ", equalised" * even,
            ", biases corrected" * how.correct,
            found[even, how],
        )
    return graphs[even], how, even


def rank(
    graph: Graph, noise: Noise, how: How, *, track: Callable[..., Iterable[Any]] = _no_bar
) -> list[tuple[str, Sensitivity]]:
    """Return each layer and what it costs, the most costly first."""
    found = []
    for layer in track(graph.layers, "one layer at a time", total=len(graph.layers)):
        db = noise.sqnr_db(graph.quantized([layer], how))
        found.append((layer, Sensitivity(layer=short(layer), sqnr_db=round(db, 2))))
    found.sort(key=lambda one: one[1].sqnr_db)
    return found


def to_keep(
    graph: Graph,
    noise: Noise,
    how: How,
    sqnr_db: float,
    *,
    track: Callable[..., Iterable[Any]] = _no_bar,
    measure: Callable[[Collection[str]], float] | None = None,
    most: int | None = None,
) -> tuple[list[str], list[Sensitivity]]:
    """Return the layers to spare so that ``sqnr_db`` is reached, and what each costs.

    As few of the loudest as will do, by bisection; ``most`` of them if nothing will.

    Args:
        graph: What the layers are ranked in.
        noise: What measures.
        how: The arithmetic.
        sqnr_db: To reach, in decibels.
        track: May draw a bar.
        measure: Tells the decibels if these layers are spared; None: those of the QDQ graph in
            which they stay in float32.
        most: Layers to spare at most; None: all but one.
    """
    ranking: list[tuple[str, Sensitivity]] = []

    def of_graph(loud: Collection[str]) -> float:
        rest = [name for name in graph.layers if name not in loud]
        return noise.sqnr_db(graph.quantized(rest, how))

    def reached(kept: int) -> bool:
        return (measure or of_graph)({name for name, _ in ranking[:kept]}) >= sqnr_db

    if reached(0):
        return [], []
    ranking = rank(graph, noise, how, track=track)
    low, high = 0, len(ranking) - 1 if most is None else most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return [name for name, _ in ranking[:high]], [one for _, one in ranking]
