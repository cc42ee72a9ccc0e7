"""Latency: milliseconds of a detector as a function of the widths of its channel groups.

The time of each convolution is looked up in a table that was measured once on this machine. What
the convolutions do not account for (sums, memory, what a call costs) is fitted to a few whole
networks at drawn widths, exported and timed side by side. So thousands of allocations can be
valued in the time of one measurement.
"""

import copy
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from slimface.bench.kept_times import KeptTimes
from slimface.bench.layers import Convolution, time_layers
from slimface.bench.surfaces import ALIGNMENT, Surface
from slimface.compress.place import Place
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.cost import CostModel, cost_model
from slimface.model.network import Network
from slimface.model.surgery import remove_channels
from slimface.model.widths import is_depthwise

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Track = Callable[..., Iterable[Any]]

_NETWORKS = 9
"""Whole networks that are timed, the detector itself among them."""


def _no_bar(items: Iterable[Any], _description: str, total: int | None = None) -> Iterable[Any]:
    return items


class _Fit(NamedTuple):
    """Milliseconds of a network = the product of these with what is known about it."""

    call: float
    """Of each call, whatever the widths."""

    convolutions: float
    """Per millisecond of the convolutions on their own."""

    values: float
    """Per million values that layers put out."""


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable:
    """Predicts the milliseconds of a detector at any widths of its groups."""

    place: Place
    names: tuple[str, ...]
    sizes: npt.NDArray[np.intp]
    """Widths before any cut, shape ``(groups,)``."""

    error: float
    """How far predictions of the timed networks are off, as a share: the largest, each predicted
    from the others alone."""

    _costs: CostModel
    _layers: npt.NDArray[np.intp]
    """Shape ``(uses,)``: which layer of the cost model each use of a convolution is of."""

    _times: Floats
    """All tables one after the other, flat."""

    _starts: npt.NDArray[np.intp]
    """Shape ``(uses,)``: where the table of a use begins."""

    _rows: npt.NDArray[np.intp]
    """Shape ``(uses,)``: how long the rows of that table are."""

    _pixels: Floats
    """Shape ``(uses,)``: of the output."""

    _fit: _Fit

    @classmethod
    def measure(
        cls,
        detector: Network,
        place: Place | None = None,
        *,
        groups: tuple[ChannelGroup, ...] | None = None,
        track: Track = _no_bar,
    ) -> Self:
        """Measure what is not known yet on this machine: seconds to a minute, once.

        Args:
            detector: Unchanged.
            place: In which runtime, with how many threads, on pictures of which size.
            groups: ``channel_groups(detector)``, where the caller has it already.
            track: ``track(items, description, total=...)`` may draw a bar.

        Raises:
            MissingError: The runtime or what exports for it is not installed.
            ParityError: The detector cannot be exported.
        """
        place = place or Place()
        groups = groups or channel_groups(detector)
        costs = cost_model(detector, groups, place.height_px, place.width_px)
        uses = list(_uses(detector, costs, place))
        # Layers alone are timed in ONNX Runtime whatever the place: the fit is to its networks.
        tables = _tables([surface for _, surface in uses], place.threads, track)
        raw = cls(
            place=place,
            names=costs.names,
            sizes=costs.sizes,
            error=0.0,
            _costs=costs,
            _layers=np.array([layer for layer, _ in uses], dtype=np.intp),
            _times=np.concatenate([np.zeros(1), *[table.ravel() for table in tables]]),
            _starts=1 + np.cumsum([0, *[table.size for table in tables]])[:-1].astype(np.intp),
            _rows=np.array([table.shape[1] for table in tables], dtype=np.intp),
            _pixels=np.array([_pixels_out(surface.layer) for _, surface in uses], dtype=float),
            _fit=_Fit(0.0, 1.0, 0.0),
        )
        return raw._fitted(detector, groups, track)

    def ms(self, widths: npt.ArrayLike) -> Floats:
        """Return the milliseconds at these widths.

        Args:
            widths: Shape ``(..., groups)``, in the order of ``names``.

        Returns:
            Shape ``(...)``.
        """
        ms: Floats = self._features(widths) @ np.array(self._fit)
        return ms

    def _features(self, widths: npt.ArrayLike) -> Floats:
        """Shape ``(..., 3)``, as ``_Fit`` says."""
        outputs, inputs = self._costs.layer_widths(widths)
        rows, columns = inputs[..., self._layers], outputs[..., self._layers]
        places = self._starts + self._rows * np.rint(rows).astype(np.intp)
        alone = self._times[places + np.rint(columns).astype(np.intp)].sum(axis=-1)
        values = columns @ self._pixels / 1e6
        return np.stack([np.ones_like(alone), alone, values], axis=-1)

    def _fitted(self, detector: Network, groups: Sequence[ChannelGroup], track: Track) -> Self:
        """Fit whole networks; take what was measured before, if it was."""
        kept = KeptTimes(self.place.runtime, self.place.threads)
        key = self._key(detector)
        known = kept.read("whole networks").get(key)
        if known is None:
            widths = self._drawn_widths()
            known = {"widths": widths.tolist(), "ms": self._time(detector, groups, widths, track)}
            kept.add("whole networks", {key: known})
        measured = np.array(known["ms"])
        features = self._features(known["widths"])
        others = [np.delete(np.arange(len(measured)), i) for i in range(len(measured))]
        unseen = [
            features[i] @ _solve(features[rest], measured[rest]) for i, rest in enumerate(others)
        ]
        error = float(np.abs(unseen / measured - 1).max())
        fit = _Fit(*_solve(features, measured).tolist())
        log.info(
            "%s in %s: %.2f ms; predictions are within %.1f %%",
            detector.spec.name,
            self.place,
            measured[0],
            100 * error,
        )
        return replace(self, _fit=fit, error=error)

    def _key(self, detector: Network) -> str:
        """What tells architectures apart, whatever their weights."""
        shapes = [[name, *tensor.shape] for name, tensor in detector.state_dict().items()]
        about = [type(detector).__name__, str(self.place), self.sizes.tolist(), shapes]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]

    def _drawn_widths(self) -> npt.NDArray[np.intp]:
        """Widths of the networks to time: the whole one, and others narrower and narrower.

        Every second one keeps to multiples of four, which runtimes compute in another way.
        """
        rng = np.random.default_rng(0)
        drawn = [self.sizes]
        for i, rate in enumerate(np.linspace(0.1, 0.8, _NETWORKS - 1)):
            rates = np.clip(rate + rng.uniform(-0.2, 0.2, len(self.sizes)), 0, 0.9)
            widths = np.maximum(np.rint(self.sizes * (1 - rates)), 1).astype(np.intp)
            if i % 2:
                widths = np.minimum(-(-widths // ALIGNMENT) * ALIGNMENT, self.sizes)
            drawn.append(widths)
        return np.array(drawn)

    def _time(
        self,
        detector: Network,
        groups: Sequence[ChannelGroup],
        widths: npt.NDArray[np.intp],
        track: Track,
    ) -> list[float]:
        """Export the detector at each of these widths, and time them side by side."""
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for i, row in enumerate(track(widths, "exporting", total=len(widths))):
                keep = {name: np.arange(n) for name, n in zip(self.names, row, strict=True)}
                narrow = remove_channels(detector, keep, groups=tuple(groups))
                files.append(self.place.export(narrow, Path(folder) / str(i)))
            found: list[float] = self.place.network_ms(files).round(4).tolist()
            return found


def _uses(detector: Network, costs: CostModel, place: Place) -> Iterator[tuple[int, Surface]]:
    """Each use of a convolution whose widths can change: its layer in ``costs``, and what it is."""
    ghost = copy.deepcopy(detector).to("meta").eval()
    numbers = {name: i for i, name in enumerate(costs.layers)}
    names = {layer: name for name, layer in ghost.named_modules()}
    found: list[tuple[nn.Conv2d, int, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append((layer, *inputs[0].shape[2:]))

    for name, layer in ghost.named_modules():
        simple = isinstance(layer, nn.Conv2d) and (layer.groups == 1 or is_depthwise(layer))
        if name in numbers and simple:
            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        ghost.maps(torch.empty((1, 3, place.height_px, place.width_px), device="meta"))
    least = costs.layer_widths(np.zeros(len(costs.sizes)))
    most = costs.layer_widths(costs.sizes)
    for layer, height, width in found:
        number = numbers[names[layer]]
        fixed = [bool(low[number] == high[number]) for low, high in zip(least, most, strict=True)]
        yield number, Surface(_convolution(layer, height, width), fixed[1], fixed[0])


def _convolution(layer: nn.Conv2d, height: int, width: int) -> Convolution:
    padding = layer.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding = tuple(reach) if padding == "same" else (0, 0)
    return Convolution(
        inputs=layer.in_channels,
        outputs=layer.out_channels,
        kernel=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=_pair(padding),
        dilation=_pair(layer.dilation),
        depthwise=is_depthwise(layer),
        height=height,
        width=width,
    )


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return first, second


def _pixels_out(layer: Convolution) -> int:
    return (layer.height // layer.stride[0]) * (layer.width // layer.stride[1])


def _tables(surfaces: Sequence[Surface], threads: int, track: Track) -> list[Floats]:
    """Measure what is not kept yet, and return the table of each surface."""
    kept = KeptTimes("onnxruntime", threads)
    known: dict[str, float] = kept.read("layers")
    points = {point: str(point) for surface in surfaces for point in surface.points()}
    fresh: dict[str, float] = {}

    def keep(layers: Mapping[Convolution, float]) -> None:
        found = {points[layer]: round(ms, 5) for layer, ms in layers.items()}
        fresh.update(found)
        kept.add("layers", found)

    missing = [point for point, key in points.items() if key not in known]
    if missing:
        log.info("timing %d layers in ONNX Runtime, once on this machine", len(missing))
        time_layers(missing, threads=threads, finished=keep, track=track)
    times = {point: (known | fresh)[key] for point, key in points.items()}
    return [surface.table(times) for surface in surfaces]


def _solve(features: Floats, measured: Floats) -> Floats:
    """Least squares of relative errors, none of the factors negative."""
    factors: Floats = nnls(features / measured[:, None], np.ones(len(measured)))[0]
    return factors
