"""Constants: what the channels of a masked model show whatever the picture.

A zeroed filter is not silent: its batch norm sends a constant on. Behind a zero-padded convolution
that constant is another one at the borders, where some taps meet padding. There are few kinds of
borders (which taps are inside, along each axis), so such a channel is a short list of numbers too,
one for each kind of place, good for maps of every size.

These lists are followed through the operations of one forward pass (abstract interpretation).
Whatever is not understood counts as changing with the picture, which is always safe.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from slimface.model.network import Network


@dataclass(frozen=True, slots=True)
class Still:
    """What is known of a feature map without seeing the picture."""

    known: Tensor
    """Shape ``(c,)``, bool: channels that no picture changes."""

    values: Tensor
    """Shape ``(1, c, kinds, kinds)``: their values in each kind of place, ``(1, c, 1, 1)`` where
    all places are alike; zero for channels that are not known. Maps without height and width
    have ``(1, c)``."""

    border: Hashable = None
    """Which kinds of places are meant, or None: lists of different kinds cannot be combined."""

    @property
    def uniform(self) -> Tensor:
        """Shape ``(c,)``, bool: known channels that are alike in all places."""
        flat = self.values.flatten(2) if self.values.dim() > 2 else self.values.unsqueeze(2)
        return self.known & (flat == flat[..., :1]).all(dim=2)[0]

    @property
    def rows(self) -> Tensor:
        """Shape ``(c, kinds * kinds)``: the values as a table."""
        return self.values[0].reshape(len(self.known), -1)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one pass has shown."""

    seen: dict[str, list[Still]] = field(default_factory=dict)
    """Layer that mixes channels -> its input, each time it runs."""

    norms: dict[str, str] = field(default_factory=dict)
    """Convolution -> the batch norm that takes all it puts out, and nothing else."""


def observe(detector: Network, *, borders: bool = True) -> Observation:
    """Follow constants from layer to layer.

    Args:
        detector: In evaluation mode and double precision.
        borders: Whether zero padding counts; else maps are taken to have no borders.
    """
    observation = Observation()
    picture = torch.randn(
        (1, 3, *detector.trace_size), generator=torch.Generator().manual_seed(0)
    ).to(next(detector.parameters()))
    watch = _Watch(picture, borders=borders)
    pairs = _Pairs(watch)
    hooks = []
    for name, layer in detector.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            hooks.append(layer.register_forward_pre_hook(_note(observation, watch, name)))
            hooks.append(layer.register_forward_hook(pairs.written(name)))
        elif isinstance(layer, _BatchNorm) and layer.track_running_stats:
            hooks.append(layer.register_forward_pre_hook(pairs.taken(name)))
    try:
        with torch.no_grad(), watch:
            maps = detector.maps(picture)
    finally:
        for hook in hooks:
            hook.remove()
    observation.norms.update(pairs.exclusive(maps))
    return observation


def _note(observation: Observation, watch: "_Watch", name: str) -> Callable[..., None]:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        observation.seen.setdefault(name, []).append(watch.still(inputs[0]))

    return hook


class _Pairs:
    """Which batch norm belongs to which convolution."""

    def __init__(self, watch: "_Watch") -> None:
        self._watch = watch
        self._outputs: dict[int, str] = {}
        self._takes: list[tuple[str, str | None]] = []
        """Norm, and the convolution whose output it took."""

    def written(self, name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._outputs[id(output)] = name

        return hook

    def taken(self, name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._takes.append((name, self._outputs.get(id(inputs[0]))))

        return hook

    def exclusive(self, maps: Iterable[Tensor]) -> dict[str, str]:
        """Return the pairs whose convolution writes for the norm only, and vice versa."""
        predictions = {id(output) for output in maps}
        heard_elsewhere = {
            name
            for output, name in self._outputs.items()
            if self._watch.uses[output] != 1 or output in predictions
        }
        sources: dict[str, set[str | None]] = {}
        for norm, source in self._takes:
            sources.setdefault(norm, set()).add(source)
        takes = Counter(source for _, source in self._takes)
        runs = Counter(self._outputs.values())
        return {
            source: norm
            for norm, (source, *others) in sources.items()
            if source is not None
            and not others
            and source not in heard_elsewhere
            and takes[source] == runs[source]
        }


_POINTWISE = {
    *("relu", "leaky_relu", "_prelu_kernel", "hardtanh", "clamp", "clamp_min", "hardswish"),
    *("hardsigmoid", "silu", "mish", "gelu", "elu", "sigmoid", "tanh", "softplus", "neg", "abs"),
    *("add", "sub", "mul", "div", "clone", "detach", "alias", "_to_copy", "native_batch_norm"),
}
"""Operations that treat all places of a map alike."""

_RESAMPLING = {
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_adaptive_avg_pool2d"),
    *("max_pool2d_with_indices",),
}
"""Operations that leave a map alone whose places are all alike."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is known from tensor to tensor while a detector runs."""

    def __init__(self, picture: Tensor, *, borders: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: Counter[int] = Counter()
        self._borders = borders
        # Tensors are known by their addresses as objects, which are unique while they are alive.
        self._alive: list[Tensor] = []
        self._still: dict[int, Still] = {}
        self._set(picture, _unknown(picture))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping torch's compiler imports it first, which takes longer than all else here.
        return False

    def still(self, tensor: Tensor) -> Still:
        """What is known of a tensor."""
        return self._still.get(id(tensor)) or _unknown(tensor)

    def _set(self, tensor: Tensor, still: Still) -> None:
        self._alive.append(tensor)
        self._still[id(tensor)] = still

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs = [t for t in _tensors((args, kwargs.values())) if id(t) in self._still]
        if not inputs:
            return result
        self.uses.update(id(tensor) for tensor in inputs)
        first, *others = _tensors((result,))
        still = self._follow(func, args, kwargs, first)
        if func._schema.is_mutable:
            self._forget(first)
        self._set(first, still)
        for other in others:
            self._set(other, _unknown(other))
        return result

    def _forget(self, changed: Tensor) -> None:
        """Other views of memory that was written over are not known any more."""
        memory = changed.untyped_storage().data_ptr()
        for tensor in self._alive:
            if tensor.untyped_storage().data_ptr() == memory:
                self._still[id(tensor)] = _unknown(tensor)

    def _follow(self, func: Any, args: Any, kwargs: Any, output: Tensor) -> Still:
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        still: Still | None = None
        if name == "convolution":
            still = self._convolved(*args)
        elif name in _POINTWISE and not (name == "native_batch_norm" and args[5]):
            still = self._pointwise(func, name, args, kwargs, output)
        elif name in _RESAMPLING or (name == "mean" and _is_spatial(args)):
            still = _resampled(self.still(args[0]), output)
        elif name == "cat" and (args[1] if len(args) > 1 else 0) == 1:
            still = _side_by_side([self.still(part) for part in args[0]])
        return still if still is not None else _unknown(output)

    def _pointwise(
        self, func: Any, name: str, args: Any, kwargs: Any, output: Tensor
    ) -> Still | None:
        """Run the operation on the lists of values instead of the maps."""
        states = [
            self._still[id(a)] for a in args if isinstance(a, Tensor) and id(a) in self._still
        ]
        others = [a for a in args if isinstance(a, Tensor) and id(a) not in self._still]
        if name != "native_batch_norm" and not all(_is_placeless(other) for other in others):
            return None
        states = _comparable(states)
        lists = iter(states)
        given = [
            next(lists).values.clone() if isinstance(a, Tensor) and id(a) in self._still else a
            for a in args
        ]
        result = func(*given, **kwargs)
        values = result[0] if isinstance(result, tuple) else result
        width = values.shape[1]
        if (output.dim(), output.shape[1]) != (values.dim(), width):
            return None
        known = torch.stack([s.known.expand(width) for s in states]).all(dim=0)
        if name == "mul":
            # Nothing is heard through a zero, such as a fusion weight that training has closed.
            for a in args:
                known = known | self._zero(a, width)
        border = next((s.border for s in states if s.border is not None), None)
        return _tidy(known, values, border)

    def _zero(self, factor: Any, width: int) -> Tensor:
        if not isinstance(factor, Tensor):
            return torch.tensor(factor == 0).expand(width)
        still = self._still.get(id(factor))
        if still is not None:
            return (still.known & (still.rows == 0).all(dim=1)).expand(width)
        per_channel = factor.reshape(-1) if factor.dim() < 3 else factor.reshape(factor.shape[-3])
        return (per_channel == 0).expand(width)

    def _convolved(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
    ) -> Still | None:
        stride, padding, dilation, transposed, _, groups = options
        if transposed or weight.dim() != 4:
            return None
        before = self.still(images)
        outputs, per_group, *kernel = weight.shape
        # Input channel that each filter's i-th slice reads.
        first = torch.arange(outputs) // (outputs // groups) * per_group
        source = first.unsqueeze(1) + torch.arange(per_group)
        hears = (weight != 0).flatten(2).any(dim=2)
        mixes = all(side == 1 for side in (*kernel, *stride)) and not any(padding)
        usable = before.known if mixes else before.uniform
        known = ~(hears & ~usable[source]).any(dim=1)
        values = torch.where(usable[:, None, None], before.values[0], 0.0)
        if mixes:
            mixed = torch.einsum("oi,oiyx->oyx", weight[:, :, 0, 0], values[source])
            border = before.border
        else:
            taps = torch.einsum("oihw,oi->ohw", weight, values[:, 0, 0][source])
            inside = [
                _kinds(k, s, p, d) if self._borders else _kinds(k, s, 0, d)
                for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)
            ]
            mixed = torch.einsum("ohw,yh,xw->oyx", taps, *(kinds.to(taps) for kinds in inside))
            border = (tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))
            if max(stride) > 1:
                # Where a strided map ends depends on the size of the one before it.
                border = (*border, id(images))
        if bias is not None:
            mixed = mixed + bias[:, None, None]
        return _tidy(known, mixed.unsqueeze(0), border)


@cache
def _kinds(kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the kinds of places along an axis, shape ``(kinds, kernel)``: 1 for taps inside.

    The places of all maps from one pixel up; larger maps have no others. The first is the inside.
    """
    reach = dilation * (kernel - 1) + 1
    found = set()
    for size in range(1, reach + 2 * padding + 2 * stride + 1):
        for place in range((size + 2 * padding - reach) // stride + 1):
            start = place * stride - padding
            found.add(tuple(0 <= start + i * dilation < size for i in range(kernel)))
    return torch.tensor(sorted(found, reverse=True), dtype=torch.float64)


def _unknown(tensor: Tensor) -> Still:
    channels = tensor.shape[1] if tensor.dim() > 1 else 0
    shape = (1, channels, 1, 1) if tensor.dim() > 2 else (1, channels)
    return Still(torch.zeros(channels, dtype=torch.bool), torch.zeros(shape, dtype=torch.float64))


def _tidy(known: Tensor, values: Tensor, border: Hashable) -> Still:
    """Blank what is not known, and forget kinds of places where all are alike."""
    mask = known.view(1, -1, *[1] * (values.dim() - 2))
    still = Still(known, torch.where(mask, values, 0.0), border)
    if values.dim() > 2 and bool((still.uniform | ~known).all()):
        still = replace(still, values=still.values[:, :, :1, :1], border=None)
    return still


def _comparable(states: list[Still]) -> list[Still]:
    """Give up channels that differ at borders, where the borders are of different kinds."""
    if len({state.border for state in states if state.border is not None}) < 2:
        return states
    return [
        _tidy(state.uniform, state.values, None) if state.values.dim() > 2 else state
        for state in states
    ]


def _resampled(before: Still, output: Tensor) -> Still | None:
    values = before.values if before.values.dim() == 2 else before.values[:, :, :1, :1]
    if output.dim() == 2 and values.dim() == 4:
        values = values[:, :, 0, 0]
    return _tidy(before.uniform, values, None)


def _side_by_side(states: list[Still]) -> Still | None:
    states = _comparable(states)
    shapes = [state.values.shape[2:] for state in states]
    if len({len(shape) for shape in shapes}) > 1:
        return None
    places = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    values = [s.values.expand(1, len(s.known), *places) for s in states]
    border = next((s.border for s in states if s.border is not None), None)
    return _tidy(torch.cat([s.known for s in states]), torch.cat(values, dim=1), border)


def _is_spatial(args: Any) -> bool:
    return len(args) > 1 and {dim % 4 for dim in args[1] or ()} == {2, 3} and args[0].dim() == 4


def _is_placeless(tensor: Tensor) -> bool:
    """Whether a parameter or number is the same at all places of a map."""
    return tensor.numel() == 1 or (3 <= tensor.dim() <= 4 and tensor.shape[-2:] == (1, 1))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Iterable) and not isinstance(value, str):
            yield from _tensors(value)
