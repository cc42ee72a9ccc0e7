"""Calls: what a network computes, call by call, and where in it the tensors of a graph are.

An exported graph and the module it was made from have no names in common for what lies between
layers, so tensors are recognised by what they hold: both look at the same pictures, and a tensor of
the graph is the answer of the first call that gives the same numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from slimface.core.faces import Floats
from slimface.errors import UsageError
from slimface.model.network import Network

WEIGHTED = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0, "conv_transpose2d": 1}
"""Functions that have weights, as their second argument -> axis of the output channels."""

HANDED_ON = ("contiguous", "to", "detach")
"""Functions that answer what they are given. They are not counted: a training may put them in."""

GLIMPSE_PX = 192
"""Side of what is looked at of a picture; a map of each level is in it."""

GLIMPSES = 3
"""So many pictures tell one tensor from the other."""

_ALIKE = 1e-3
"""Rounding of float32 through all layers, as a share of a tensor's largest magnitude."""


class Asked(NamedTuple):
    """A call that is about to be made."""

    name: str
    args: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def arguments(self, names: Sequence[str]) -> dict[str, Any]:
        """Return its arguments by name; ``names`` are in the order in which torch takes them."""
        return {**dict(zip(names, self.args, strict=False)), **self.keywords}


class Calls(TorchFunctionMode):
    """Counts the calls whose answer is a tensor of floats, and may change what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def given(self, call: "Asked") -> tuple[Any, ...]:
        """Return what the call numbered ``count`` is to be given instead of its arguments."""
        return call.args

    def answered(self, call: "Asked", answer: Tensor) -> Tensor:
        """Return what the call numbered ``count`` is to answer instead."""
        return answer

    def handed_on(self, call: "Asked", answer: Tensor) -> None:
        """Note a call that answers what it is given."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        call = Asked(getattr(func, "__name__", ""), args, kwargs or {})
        answer = func(*self.given(call), **call.keywords)
        if not isinstance(answer, Tensor) or not answer.is_floating_point():
            return answer
        if call.name in HANDED_ON:
            self.handed_on(call, answer)
            return answer
        answer = self.answered(call, answer)
        self.count += 1
        return answer


class Call(NamedTuple):
    """One call of a forward pass."""

    asked: Asked
    readings: tuple[int, ...]
    """Numbers of the calls that made its arguments."""

    values: list[Floats]
    """What it answered, an array a picture."""

    @property
    def name(self) -> str:
        """Of the function."""
        return self.asked.name


class _Listener(Calls):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._makers: dict[int, tuple[Tensor, int]] = {}
        """By the identity of what was made, which is kept lest another tensor gets it."""

    def answered(self, call: Asked, answer: Tensor) -> Tensor:
        # A copy: a later call may write into the same memory.
        values = answer.detach().cpu().numpy().copy()
        self.calls.append(Call(call, self._readings(call), [values]))
        self._makers[id(answer)] = answer, self.count
        return answer

    def handed_on(self, call: Asked, answer: Tensor) -> None:
        for number in self._readings(call):
            self._makers[id(answer)] = answer, number

    def _readings(self, call: Asked) -> tuple[int, ...]:
        return tuple(self._makers[id(one)][1] for one in call.args if id(one) in self._makers)


def glimpses(network: Network, inputs: Sequence[Floats]) -> list[Floats]:
    """Return the middle of some inputs, large enough for every layer and small enough to keep."""
    stride = max(len(inputs) // GLIMPSES, 1)
    chosen = [images[:2] for images in inputs[::stride][:GLIMPSES]]
    if network.input_size is not None:
        return chosen
    return [_middle(_middle(images, 2), 3) for images in chosen]


def _middle(images: Floats, axis: int) -> Floats:
    start = max(images.shape[axis] - GLIMPSE_PX, 0) // 2
    index = [slice(None)] * images.ndim
    index[axis] = slice(start, start + GLIMPSE_PX)
    return np.ascontiguousarray(images[tuple(index)])


@torch.no_grad()
def calls_of(network: Network, inputs: Iterable[Floats]) -> list[Call]:
    """Let a network in evaluation mode look at inputs, and return its calls.

    Raises:
        UsageError: It does not compute the same calls for all of them.
    """
    device = next(network.parameters()).device
    calls: list[Call] = []
    for images in inputs:
        given = torch.from_numpy(images).to(device)
        with _Listener() as listener:
            network(given)
        if calls and [one.name for one in calls] != [one.name for one in listener.calls]:
            raise changing(network)
        for before, now in zip(calls, listener.calls, strict=bool(calls)):
            before.values.extend(now.values)
        calls = calls or listener.calls
    return calls


def changing(network: Network) -> UsageError:
    """Return the error for a network whose calls are not always the same."""
    return UsageError(
        f"{network.spec.name} computes other operations in training than in evaluation, or for "
        "other pictures, so it cannot be told where its file rounds.\n"
        "Leave the qat step out, or what changes (stochastic depth, for one)."
    )


def places(tensors: Mapping[str, Sequence[Floats]], calls: Sequence[Call]) -> dict[str, int]:
    """Return which call makes each tensor of a graph: its number.

    A tensor that no call makes is left out, and so is one that holds the same number everywhere,
    if several calls answer so.

    Args:
        tensors: What each holds, an array a picture, in the order in which they are computed.
        calls: Of the same pictures.
    """
    found: dict[str, int] = {}
    for name, wanted in tensors.items():
        gaps = {number: _gap(wanted, call.values) for number, call in enumerate(calls)}
        best = min(gaps.values())
        alike = [n for n, gap in gaps.items() if gap <= min(4 * best + 1e-7, _ALIKE)]
        if not alike or (len(alike) > 1 and not any(np.ptp(one) > 0 for one in wanted)):
            continue
        # A call may hand on what it is given as it is, such as a ReLU of positive numbers.
        taken = set(found.values())
        found[name] = next((number for number in alike if number not in taken), alike[0])
    return found


def _gap(wanted: Sequence[Floats], given: Sequence[Floats]) -> float:
    """How far two tensors are from each other, as a share of the largest magnitude."""
    if [one.shape for one in wanted] != [one.shape for one in given]:
        return np.inf
    largest = max(1e-30, *(float(np.abs(one).max(initial=0)) for one in wanted))
    gaps = (float(np.abs(a - b).max(initial=0)) for a, b in zip(wanted, given, strict=True))
    return max(gaps) / largest


def layer_of(number: int, calls: Sequence[Call]) -> int | None:
    """Return the nearest call with weights that this one's answer comes from; None: there is none.

    The norm behind a layer is part of the layer in a graph, so its answer is the norm's.
    """
    at: int | None = number
    while at is not None and calls[at].name not in WEIGHTED:
        at = calls[at].readings[0] if calls[at].readings else None
    return at
