"""Choice: of all ways to write one network in eight bits the one that disturbs its outputs least.

What settings leave open is measured on calibration pictures, in the runtime that the file is for.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from slimface.compress.quantize import openvino
from slimface.compress.quantize.grid import check_agree, how_learnt, on_grid
from slimface.compress.quantize.qdq import Graph, How, short
from slimface.compress.quantize.sensitive import Noise, Sensitivity, best_way, to_keep
from slimface.compress.quantize.settings import Quantization
from slimface.core.faces import Floats
from slimface.core.grid import Grid
from slimface.errors import UsageError

log = logging.getLogger(__name__)

Track = Callable[..., Iterable[Any]]


class Network:
    """A float graph that is to be quantised, and what it was shown."""

    def __init__(
        self, model: Any, inputs: Sequence[Floats], settings: Quantization, *, whole: bool
    ) -> None:
        """Let the graph look at its inputs.

        Args:
            model: The float graph, an ``onnx.ModelProto``.
            inputs: What it is calibrated on.
            settings: How it is to be quantised.
            whole: Whether it is all there is of a model, and not a net of a cascade.

        Raises:
            UsageError: There is nothing to quantise, no layer has the name of one to keep, or a
                tensor is infinite or no number.
        """
        self.settings = settings
        self.aim_db = settings.aim_db(whole=whole)
        self.inputs = inputs
        self.plain = Graph(model)
        self.plain.look(inputs)
        self.noise = Noise(self.plain, inputs)
        self.by_hand = _by_hand(self.plain, settings, whole)
        if len(self.by_hand) == len(self.plain.layers):
            raise UsageError(
                "All layers are to stay in float32; nothing is left to quantise.\n"
                "Keep fewer of them."
            )

    @cached_property
    def graphs(self) -> dict[bool, Graph]:
        """The graph as it is and equalised, those that may be chosen."""
        return {
            even: self.plain.equalised(self.inputs) if even else self.plain
            for even in (False, True)
            if self.settings.equalise in (None, even)
        }


@dataclass
class Chosen:
    """One network in eight bits."""

    made: Any
    """An ``onnx.ModelProto`` or OpenVINO's model."""

    graph: Graph
    """What it was made from, equalised if that was chosen."""

    sqnr_db: float
    how: How
    kept: set[str]
    """Names of nodes that stay in float32."""

    by: Literal["slimface", "nncf"] = "slimface"
    """Whose roundings they are."""

    equalised: bool = False
    ranking: list[Sensitivity] = field(default_factory=list)
    learnt: bool = False
    """Whether the weights have learnt with these roundings."""

    @property
    def layers(self) -> list[str]:
        """Names of nodes whose weights are rounded."""
        return [layer for layer in self.graph.layers if layer not in self.kept]


def for_onnxruntime(network: Network, track: Track, *, auto: bool | None = None) -> Chosen:
    """Return the network as a QDQ graph.

    Args:
        network: To quantise.
        track: May draw a bar.
        auto: Whether layers stay in float32 as measured; None: as its settings say.
    """
    settings, noise = network.settings, network.noise
    graph, how, even = best_way(network.graphs, noise, settings)
    kept = set(network.by_hand)
    ranking: list[Sensitivity] = []
    measured = "auto" in settings.keep if auto is None else auto
    if measured:
        in_eight = replace(how, bits=8)
        loud, ranking = to_keep(graph, noise, in_eight, network.aim_db, track=track)
        _say(loud, graph, "stay in float32")
        kept |= set(loud)
    left = [layer for layer in graph.layers if layer not in kept]
    if measured and how.bits < 8:

        def sparing(names: Collection[str]) -> float:
            return noise.sqnr_db(graph.quantized(left, replace(how, eight=frozenset(names))))

        every = len(graph.layers)
        loud, ranking = to_keep(
            graph, noise, how, network.aim_db, track=track, measure=sparing, most=every
        )
        how = replace(how, eight=frozenset(loud) - kept)
        _say(how.eight, graph, "have eight bits")
    made = graph.quantized(left, how)
    return Chosen(made, graph, noise.sqnr_db(made), how, kept, "slimface", even, ranking)


def as_learnt(network: Network, grid: Grid) -> Chosen:
    """Return the network as a QDQ graph with the roundings that its weights have learnt with.

    Raises:
        UsageError: Its settings ask for others, or the graph is not that of the training.
    """
    check_agree(grid, network.settings)
    graph = network.plain
    made = on_grid(graph, grid)
    kept = set(graph.layers) - set(grid.layers)
    decibels = network.noise.sqnr_db(made)
    return Chosen(made, graph, decibels, how_learnt(grid), kept, learnt=True)


def for_openvino(network: Network, track: Track) -> Chosen:
    """Return the network as OpenVINO's model.

    By NNCF, and if that misses what is aimed at, by our own QDQ graph; if that misses it as well,
    by NNCF with as few layers in float32 as will do.
    """
    settings, noise = network.settings, network.noise
    even = bool(settings.equalise)
    model = network.graphs[True].model if even else network.plain.model

    def by_nncf(how: How, loud: Iterable[str]) -> Chosen:
        kept = {*network.by_hand, *loud}
        made = openvino.by_nncf(model, kept, network.inputs, how)
        decibels = openvino.sqnr_db(noise, made)
        return Chosen(made, network.plain, decibels, how, kept, "nncf", even)

    tries = [by_nncf(how, ()) for how in openvino.ways(settings)]
    best = max(tries, key=lambda one: one.sqnr_db)
    log.info("%s by NNCF: %.1f dB", best.how, best.sqnr_db)
    if best.sqnr_db >= network.aim_db:
        return best
    own = for_onnxruntime(network, track, auto=False)
    own.made = openvino.read(own.made)
    own.sqnr_db = openvino.sqnr_db(noise, own.made)
    log.info("%.1f dB by our own roundings", own.sqnr_db)
    if own.sqnr_db < network.aim_db and "auto" in settings.keep:
        way = best.how
        loud, ranking = to_keep(
            network.plain,
            noise,
            own.how,
            network.aim_db,
            track=track,
            measure=lambda names: by_nncf(way, names).sqnr_db,
        )
        _say(loud, network.plain, "stay in float32")
        best = by_nncf(way, loud)
        best.ranking = ranking
    return max(best, own, key=lambda one: one.sqnr_db)


def _say(layers: Collection[str], graph: Graph, fate: str) -> None:
    if layers:
        log.info("%d of %d layers %s", len(layers), len(graph.layers), fate)


def _by_hand(graph: Graph, settings: Quantization, whole: bool) -> set[str]:
    """Layers that stay in float32 because the settings name them."""
    kept: set[str] = set()
    for wish in settings.keep:
        if wish == "stem":
            kept.add(graph.layers[0])
        elif wish == "heads":
            kept |= set(graph.heads)
        elif wish not in ("auto", "none"):
            kept |= _named(graph, wish, whole)
    return kept


def _named(graph: Graph, wish: str, whole: bool) -> set[str]:
    found = {layer for layer in graph.layers if wish in short(layer)}
    # A cascade's nets have the names of different layers.
    if not found and whole:
        names = ", ".join(short(layer) for layer in graph.layers[:12])
        raise UsageError(
            f"No layer's name has '{wish}' in it.\nLayers are {names}, …; or keep auto, stem, "
            "heads, none."
        )
    return found
