"""Profile: what a network costs before it runs: parameters, MACs and activation memory.

MACs are the multiplications of convolutions and linear layers, as the field counts them; batch
norms, activations, additions and resizing are left out. One MAC is about two FLOPs.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode

from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.model.network import Network

_BYTES = 4
_IN_PLACE = {
    *("native_batch_norm", "relu", "relu_", "_prelu_kernel", "leaky_relu", "hardtanh", "clamp"),
    *("hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "mul", "div", "add", "sub"),
}
"""Operations, value by value, that runtimes fuse or let write over an input of no further use."""


class LayerProfile(Value):
    """One layer, summed over its uses."""

    name: str
    kind: str
    parameters: int
    macs: int
    output: tuple[int, ...] = ()
    """Channels, height, width of its last output; empty for parameters that are no layer."""

    uses: int = 1
    """How often it runs for one picture; a shared layer more than once."""


class Profile(Value):
    """The cost of one picture of a given size."""

    model: str
    height: int
    width: int
    parameters: int
    macs: int
    activation_bytes: int = Field(ge=0)
    """Most memory that the picture and feature maps take at once, in 32-bit floats: each map is
    freed after its last use, and batch norms, activations and sums write over their input."""

    layers: tuple[LayerProfile, ...] = ()

    @property
    def weight_bytes(self) -> int:
        """Memory of the parameters in 32-bit floats."""
        return _BYTES * self.parameters


class LayerChange(Value):
    """One layer in two profiles; None where only one of them has it."""

    name: str
    before: LayerProfile | None
    after: LayerProfile | None


def profile(network: Network, height: int, width: int) -> Profile:
    """Count what one picture of this size costs. Nothing is computed, so any size is fast.

    Raises:
        UsageError: The size is not positive.
    """
    if height < 1 or width < 1:
        raise UsageError(f"A picture of {width}x{height} has no pixels.\nGive positive sizes.")
    ghost = copy.deepcopy(network).to("meta").eval()
    rows: dict[str, LayerProfile] = {}
    hooks = [
        module.register_forward_hook(_counter(rows, name))
        for name, module in ghost.named_modules()
        if not list(module.children()) and list(module.parameters())
    ]
    picture = torch.empty((1, 3, height, width), device="meta")
    tape = _Tape(picture)
    with torch.no_grad(), tape:
        ghost.maps(picture)
    for hook in hooks:
        hook.remove()
    layers = _in_order(ghost, rows)
    return Profile(
        model=network.spec.name,
        height=height,
        width=width,
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=tape.peak(),
        layers=layers,
    )


def compare_profiles(before: Profile, after: Profile) -> tuple[LayerChange, ...]:
    """Put two profiles of one architecture side by side, layer by layer.

    Raises:
        UsageError: They are of different input sizes.
    """
    if (before.height, before.width) != (after.height, after.width):
        raise UsageError(
            f"{before.model} was profiled at {before.width}x{before.height}, {after.model} at "
            f"{after.width}x{after.height}.\nProfile both at one size."
        )
    first = {layer.name: layer for layer in before.layers}
    second = {layer.name: layer for layer in after.layers}
    return tuple(
        LayerChange(name=name, before=first.get(name), after=second.get(name))
        for name in dict.fromkeys([*first, *second])
    )


def _counter(rows: dict[str, LayerProfile], name: str) -> Any:
    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        known = rows.get(name)
        rows[name] = LayerProfile(
            name=name,
            kind=type(layer).__name__,
            parameters=sum(p.numel() for p in layer.parameters()),
            macs=_macs(layer, inputs[0], output) + (known.macs if known else 0),
            output=tuple(output.shape[1:]),
            uses=known.uses + 1 if known else 1,
        )

    return count


def _macs(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    if isinstance(layer, _ConvTransposeNd):
        return given[0].numel() * layer.weight[0].numel()
    if isinstance(layer, _ConvNd | nn.Linear):
        return output[0].numel() * layer.weight[0].numel()
    return 0


def _in_order(network: nn.Module, rows: dict[str, LayerProfile]) -> tuple[LayerProfile, ...]:
    """Rows as the layers run, then what never ran, then parameters that are no layer."""
    layers = list(rows.values())
    for name, module in network.named_modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if own and name not in rows:
            layers.append(
                LayerProfile(name=name, kind=type(module).__name__, parameters=own, macs=0, uses=0)
            )
    return tuple(layers)


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which operation reads and writes which memory, to replay it as a planner would."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Memory is known by its address as an object, which is unique only while it is alive.
        self._alive: list[Any] = []
        self._reads: list[tuple[int, ...]] = [()]
        self._writes: list[dict[int, int]] = [{self._key(picture): _bytes(picture)}]
        self._in_place: list[bool] = [False]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping torch's compiler imports it first, which takes longer than all else here.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in _IN_PLACE:
            result = _value_by_value(func, args)
        elif name == "cat":
            result = _side_by_side(*args)
        else:
            result = func(*args, **(kwargs or {}))
        reads = tuple(self._key(tensor) for tensor in _tensors(args))
        written = {self._key(tensor): _bytes(tensor) for tensor in _tensors((result,))}
        self._reads.append(reads)
        self._writes.append({key: size for key, size in written.items() if key not in reads})
        self._in_place.append(name in _IN_PLACE)
        return result

    def _key(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._alive.append(storage)
        return int(storage._cdata)

    def peak(self) -> int:
        """Return the most bytes that written memory takes at once."""
        last_read = {key: i for i, reads in enumerate(self._reads) for key in reads}
        sizes: dict[int, int] = {}
        peak = 0
        for i, (reads, writes) in enumerate(zip(self._reads, self._writes, strict=True)):
            done = [key for key in set(reads) if key in sizes and last_read[key] == i]
            if self._in_place[i]:
                for key in done:
                    del sizes[key]
            sizes.update(writes)
            peak = max(peak, sum(sizes.values()))
            if not self._in_place[i]:
                for key in done:
                    del sizes[key]
        return peak


def _value_by_value(func: Any, args: Any) -> Any:
    """Return an empty result of the right shape, without torch's help, which is slow to import."""
    if func._schema.is_mutable:
        return args[0]
    # The norm's and activation's own tensors have a shape of another kind.
    count = 1 if "norm" in func._schema.name or "prelu" in func._schema.name else len(args)
    shapes = [value.shape for value in args[:count] if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    result = torch.empty(shape, device="meta")
    returned = len(func._schema.returns)
    return result if returned == 1 else (result, *[torch.empty(0)] * (returned - 1))


def _side_by_side(parts: list[Tensor], dimension: int = 0) -> Tensor:
    shape = list(parts[0].shape)
    shape[dimension] = sum(part.shape[dimension] for part in parts)
    return torch.empty(shape, device="meta")


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
