"""Solve: the weights of a layer that answer best to other inputs, by least squares.

Rows are places of a map (or samples), columns what a filter sees there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimface.model.widths import is_depthwise

Mixing = nn.Conv2d | nn.Linear
"""Layers whose weights can be solved for."""


def is_solvable(layer: nn.Module) -> bool:
    """Whether this module knows how to solve for the weights of a layer."""
    if isinstance(layer, nn.Linear):
        return True
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    return layer.padding_mode == "zeros" and (layer.groups == 1 or is_depthwise(layer))


@dataclass(slots=True)
class Equations:
    """The normal equations of a layer, over all places and all calls that were added.

    Inputs and outputs are centred on their means, so that the means themselves are free: a bias,
    or the norm that follows, takes their difference.
    """

    rows: int
    inputs: Tensor
    """Shape ``(blocks, columns)``: sums. A depthwise layer has a block a channel, others one."""

    outputs: Tensor
    """Shape ``(blocks, wanted)``: sums."""

    squares: Tensor
    """Shape ``(blocks, columns, columns)``: sums of products of inputs."""

    products: Tensor
    """Shape ``(blocks, columns, wanted)``: sums of products of inputs and wanted outputs."""

    @classmethod
    def of(cls, seen: Tensor, wanted: Tensor) -> "Equations":
        """Begin from what filters see, ``(blocks, rows, columns)``, and what they are to say.

        Args:
            seen: Inputs.
            wanted: Outputs, ``(blocks, rows, wanted)``.
        """
        turned = seen.transpose(1, 2)
        return cls(
            seen.shape[1], seen.sum(dim=1), wanted.sum(dim=1), turned @ seen, turned @ wanted
        )

    def __add__(self, other: "Equations") -> "Equations":
        """Return the equations over the places of both."""
        return Equations(
            self.rows + other.rows,
            self.inputs + other.inputs,
            self.outputs + other.outputs,
            self.squares + other.squares,
            self.products + other.products,
        )

    def solve(self, weight: Tensor, ridge: float, *, shift: bool) -> tuple[Tensor, Tensor]:
        """Return the best weights and the shift of the outputs that goes with them.

        Args:
            weight: Shape ``(blocks, columns, wanted)``: what the solution is drawn to where the
                inputs do not decide.
            ridge: How strongly, as a share of the mean square of the inputs.
            shift: Whether anything can take a shift; without, the means count like all else.

        Returns:
            Weights as ``weight``, and the shift, shape ``(blocks, wanted)``.
        """
        squares, products = self.squares, self.products
        if shift:
            squares = squares - _outer(self.inputs, self.inputs) / self.rows
            products = products - _outer(self.inputs, self.outputs) / self.rows
        mean = squares.diagonal(dim1=1, dim2=2).mean(dim=1)
        pull = (ridge * mean).clamp(min=1e-12)[:, None, None]
        damped = squares + pull * torch.eye(squares.shape[1], dtype=squares.dtype)
        found = torch.linalg.solve(damped, products + pull * weight)
        if not shift:
            return found, torch.zeros_like(self.outputs)
        said = torch.einsum("bc,bcw->bw", self.inputs, found)
        return found, (self.outputs - said) / self.rows


def seen_at(layer: Mixing, given: Tensor, places: Tensor) -> Tensor:
    """Return what the filters of ``layer`` see at some places of its output.

    Args:
        layer: One of which ``is_solvable`` is true.
        given: Its input, ``(n, c, height, width)`` or ``(n, c)``.
        places: Shape ``(p, 3)``: sample, row and column of the output; row and column are unused
            for a linear layer.

    Returns:
        Shape ``(blocks, p, columns)``, in double precision.
    """
    if isinstance(layer, nn.Linear):
        return given[places[:, 0]].double()[None]
    (high, wide), (down, right) = _two(layer.padding), _two(layer.stride)
    apart = layer.dilation
    padded = functional.pad(given, (wide, wide, high, high))
    sample, row, column = places.T
    taps = [
        padded[sample, :, row * down + i * apart[0], column * right + j * apart[1]]
        for i in range(layer.kernel_size[0])
        for j in range(layer.kernel_size[1])
    ]
    seen = torch.stack(taps, dim=2).double()
    return seen.transpose(0, 1) if is_depthwise(layer) else seen.flatten(1)[None]


def said_at(answer: Tensor, places: Tensor) -> Tensor:
    """Return what a layer has said at these places, shape ``(p, outputs)``."""
    if answer.dim() == 2:
        return answer[places[:, 0]].double()
    sample, row, column = places.T
    return answer[sample, :, row, column].double()


def in_blocks(layer: Mixing, wanted: Tensor) -> Tensor:
    """Turn outputs ``(p, outputs)`` into ``(blocks, p, outputs of a block)``."""
    return wanted.reshape(len(wanted), _blocks(layer), -1).transpose(0, 1)


def weight_of(layer: Mixing) -> Tensor:
    """Return the weight as ``Equations.solve`` has it: blocks, columns, outputs of a block."""
    weight = layer.weight.detach().double()
    return weight.reshape(_blocks(layer), -1, weight[0].numel()).transpose(1, 2)


def set_weight_(layer: Mixing, weight: Tensor) -> None:
    """Give a layer the weight that ``Equations.solve`` has returned."""
    layer.weight.copy_(weight.transpose(1, 2).reshape(layer.weight.shape))


def _blocks(layer: Mixing) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) and is_depthwise(layer) else 1


def _two(values: tuple[int, ...] | str) -> tuple[int, int]:
    assert not isinstance(values, str)
    first, second = values
    return first, second


def _outer(one: Tensor, other: Tensor) -> Tensor:
    return one[:, :, None] * other[:, None, :]
