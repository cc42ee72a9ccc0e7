"""Reconstruct: let what is left of each layer answer as the whole layer did."""

import copy
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.compress.repair.solve import (
    Equations,
    Mixing,
    in_blocks,
    is_solvable,
    said_at,
    seen_at,
    set_weight_,
    weight_of,
)
from slimface.model.channels import ChannelGroup
from slimface.model.network import Network

N = TypeVar("N", bound=Network)

_PASSES = 3
"""Where layers are shared: the later ones change little."""

Stays = Mapping[str, npt.NDArray[np.intp]]
"""Name of a layer -> those of its outputs that were not removed, ascending."""


def reconstruct(
    whole: Network,
    narrow: N,
    stays: Stays,
    images: Tensor,
    *,
    places: int = 8192,
    ridge: float = 0.1,
    seed: int = 0,
) -> N:
    """Return ``narrow`` with new weights: each layer's answer is as near as can be to the whole's.

    The layers are solved for in the order in which they run, each for the inputs that it now has
    and the outputs that it had: what earlier layers could not make up for is known to later ones.
    Means that differ are taken by the layer's bias, or by the norm behind it. A layer that runs
    several times in a pass (a shared stage) is solved for each time, for all its runs together, and
    a few passes are made, since its earlier runs were with other weights.

    Source: Luo et al., "ThiNet", ICCV 2017, arXiv:1707.06342, section 3.3; He et al., "Channel
    Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv:1707.06168, equation 3
    (least squares towards the outputs of the unpruned network).

    Args:
        whole: The network before channels were removed.
        narrow: The same without them. Unchanged.
        stays: What ``remaining_outputs`` says of the two.
        images: 8-bit RGB, shape ``(b, 3, height, width)``; all pass at once.
        places: At so many places of each output, drawn at random, the two are compared.
        ridge: How strongly weights are drawn to what they were, as a share of the mean square of
            what they see.
        seed: Of the places.
    """
    return Answers.of(whole, images, places=places, seed=seed).taught(narrow, stays, ridge=ridge)


def remaining_outputs(
    whole: Network, keep: Mapping[str, npt.ArrayLike], groups: Sequence[ChannelGroup]
) -> dict[str, npt.NDArray[np.intp]]:
    """Return which outputs of each layer stay when channels are removed.

    Args:
        whole: Before the removal.
        keep: Name of a group -> its channels that stay; groups without an entry stay whole.
        groups: ``channel_groups(whole)``.
    """
    gone: dict[str, list[int]] = defaultdict(list)
    for group in groups:
        if group.name not in keep:
            continue
        away = np.setdiff1d(np.arange(group.size), np.asarray(keep[group.name]))
        for member in group.members:
            if member.side == "out":
                gone[member.module] += member.positions[away].ravel().tolist()
    return {
        name: np.setdiff1d(np.arange(layer.weight.shape[0]), gone[name])
        for name, layer in _solvable(whole)
    }


def _solvable(network: nn.Module) -> Iterator[tuple[str, Mixing]]:
    for name, layer in network.named_modules():
        if is_solvable(layer):
            assert isinstance(layer, Mixing)
            yield name, layer


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the layers of a whole network say to some pictures: any narrow one can learn from it."""

    images: Tensor
    said: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=lambda: defaultdict(list))
    """Layer -> for each run the places ``(p, 3)`` and the outputs there ``(p, outputs)``."""

    norms: dict[str, str] = field(default_factory=dict)
    """Layer -> the batch norm that takes its output, and nothing else's."""

    @classmethod
    def of(cls, whole: Network, images: Tensor, *, places: int = 8192, seed: int = 0) -> Self:
        """Let a network look at pictures; see ``reconstruct``."""
        whole = copy.deepcopy(whole).eval()
        answers = cls(images.to(next(whole.parameters()).device))
        with torch.no_grad(), answers._noted(whole, places, seed):
            whole.maps(whole.prepare(answers.images))
        return answers

    def taught(self, narrow: N, stays: Stays, *, ridge: float = 0.1) -> N:
        """Return a narrow network that answers as nearly so as it can; see ``reconstruct``."""
        mended = copy.deepcopy(narrow).eval()
        images = self.images.to(next(mended.parameters()).device)
        solver = _Solver(mended, stays, self, ridge)
        with torch.no_grad(), solver.at_work():
            for _ in range(self.passes):
                mended.maps(mended.prepare(images))
        return mended

    @property
    def passes(self) -> int:
        """How many passes it takes to solve for all layers."""
        shared = any(len(runs) > 1 for runs in self.said.values())
        return _PASSES if shared else 1

    @contextmanager
    def _noted(self, whole: Network, most: int, seed: int) -> Iterator[None]:
        """Write down what the layers say in the pass made inside."""
        draw = torch.Generator().manual_seed(seed)
        written: list[tuple[Tensor, str]] = []
        sources: dict[str, set[str | None]] = defaultdict(set)

        def note(name: str) -> Callable[..., None]:
            def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
                places = _drawn(output, most, draw)
                self.said[name].append((places, said_at(output, places)))
                written[:] = [(output, name)]

            return hook

        def take(name: str) -> Callable[..., None]:
            def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                source = next((layer for output, layer in written if output is inputs[0]), None)
                sources[name].add(source)

            return hook

        hooks = [layer.register_forward_hook(note(name)) for name, layer in _solvable(whole)]
        for name, layer in whole.named_modules():
            if isinstance(layer, _BatchNorm) and layer.track_running_stats:
                hooks.append(layer.register_forward_pre_hook(take(name)))
        try:
            yield
        finally:
            for one in hooks:
                one.remove()
        for norm, found in sources.items():
            (layer,) = found if len(found) == 1 else (None,)
            if layer is not None:
                self.norms[layer] = norm


class _Solver:
    """Gives the layers of a narrow network their new weights while a pass is made through it."""

    def __init__(self, narrow: Network, stays: Stays, wanted: Answers, ridge: float) -> None:
        self._narrow, self._stays, self._wanted, self._ridge = narrow, stays, wanted, ridge
        self._known: dict[str, dict[int, Equations]] = defaultdict(dict)
        self._runs: dict[str, int] = defaultdict(int)
        self._means: dict[str, Tensor] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Solve for each layer before it runs."""
        hooks = [
            layer.register_forward_pre_hook(self._hook(name))
            for name, layer in _solvable(self._narrow)
            if name in self._wanted.said
        ]
        try:
            yield
        finally:
            for one in hooks:
                one.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        return lambda layer, inputs: self._solve_(name, layer, inputs[0])

    def _solve_(self, name: str, layer: Mixing, given: Tensor) -> None:
        runs = self._wanted.said[name]
        run = self._runs[name] % len(runs)
        self._runs[name] += 1
        places, said = runs[run]
        said = said[:, torch.as_tensor(self._stays[name], device=said.device)]
        known = self._known[name]
        known[run] = Equations.of(seen_at(layer, given, places), in_blocks(layer, said))
        norm = self._wanted.norms.get(name)
        weight, shift = reduce(operator.add, known.values()).solve(
            weight_of(layer), self._ridge, shift=layer.bias is not None or norm is not None
        )
        set_weight_(layer, weight)
        if layer.bias is not None:
            layer.bias.copy_(shift.flatten())
        elif norm is not None:
            mean = self._narrow.get_submodule(norm).running_mean
            assert isinstance(mean, Tensor)
            before = self._means.setdefault(norm, mean.clone())
            mean.copy_(before - shift.flatten())


def _drawn(output: Tensor, most: int, draw: torch.Generator) -> Tensor:
    """Places of an output, ``(p, 3)``: sample, row, column."""
    height, width = output.shape[2:] if output.dim() > 2 else (1, 1)
    count = len(output) * height * width
    chosen = torch.randperm(count, generator=draw)[:most].to(output.device)
    sample, rest = chosen // (height * width), chosen % (height * width)
    return torch.stack([sample, rest // width, rest % width], dim=1)
