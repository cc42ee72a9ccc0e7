"""Carriers: few channels that stand for many, exactly, at zero-padded borders too.

What a reader hears of channels that no picture changes is a sum over them of weights times lists
of values (one value for each kind of place). A channel whose list is a combination of others'
lists can go if the weights of the others take over its share. What remains is a basis: the
carriers. If all are alike at all places, as in chains of dense convolutions, one is enough:
``W[:, carrier] = sum_k a_k W[:, k] / a_carrier``. A reader that can take a constant itself (no
padding, and a bias or batch norm after it) has the list of ones for free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1e-10
"""Part of the largest value of a reader below which a difference is rounding."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one reader hears of the candidates."""

    rows: Tensor
    """Shape ``(candidates, places)``; zero for those it must not use as carriers."""

    heard: Tensor
    """Shape ``(candidates,)``, bool: candidates that it has weights for."""

    takes_constant: bool
    """Whether it can take a sum that is the same at all places."""


def choose_carriers(blocks: Sequence[Block], candidates: int) -> list[int]:
    """Return the fewest candidates found that can stand for all; none may be enough.

    None of them can be spared, so the choice from a choice is the choice itself.
    """
    chosen: list[int] = []
    while len(chosen) < candidates:
        missing = [_left_over(block, chosen) for block in blocks]
        worth = torch.zeros(candidates, dtype=torch.float64)
        for left, block in zip(missing, blocks, strict=True):
            worth += _worth(left, block.heard)
        if not worth.any():
            break
        worth[chosen] = -1
        chosen.append(int(worth.argmax()))
    for candidate in list(chosen):
        rest = [other for other in chosen if other != candidate]
        if not any(_left_over(block, rest)[block.heard].any() for block in blocks):
            chosen = rest
    return chosen


def shares(block: Block, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return how each candidate is made of the carriers.

    Returns:
        Shape ``(candidates, carriers)``: parts of each carrier, and shape ``(candidates,)``: the
        part of the constant one.
    """
    basis = _basis(block, chosen)
    if not len(basis):
        return block.rows.new_zeros(len(block.rows), 0), block.rows.new_zeros(len(block.rows))
    parts = _solve(basis, block.rows)
    count = len(chosen)
    constant = parts[:, count] if block.takes_constant else parts.new_zeros(len(parts))
    return parts[:, :count], constant


def _worth(left: Tensor, heard: Tensor) -> Tensor:
    """How much of what a reader misses each candidate would bring, shape ``(candidates,)``."""
    length = left.norm(dim=1)
    directions = left / torch.where(length > 0, length, 1.0)[:, None]
    gain = (left[heard] @ directions.T).square().sum(dim=0)
    # Weak ones would need large weights; of equals, the strongest needs the smallest.
    strength = length / length.max().clamp(min=1e-300)
    worth: Tensor = gain * (10 * strength).clamp(max=1) * (1 + strength / 1000)
    return worth


def _left_over(block: Block, chosen: Sequence[int]) -> Tensor:
    """The part of each candidate's list that carriers cannot make, in the same shape.

    As a share of the reader's largest value; rounding is zero.
    """
    scale = block.rows.abs().max().clamp(min=1e-300)
    rows = block.rows
    basis = _basis(block, chosen)
    if len(basis):
        rows = rows - _solve(basis, rows) @ basis
    left = rows / scale
    return torch.where(left.abs().amax(dim=1, keepdim=True) > _TOLERANCE, left, 0.0)


def _basis(block: Block, chosen: Sequence[int]) -> Tensor:
    basis = block.rows[list(chosen)]
    if block.takes_constant:
        basis = torch.cat([basis, torch.ones_like(block.rows[:1])])
    return basis


def _solve(basis: Tensor, rows: Tensor) -> Tensor:
    """Least squares, by singular values: carriers a reader must not use are rows of zeros."""
    size = basis.abs().amax(dim=1, keepdim=True)
    scaled = basis / torch.where(size > 0, size, 1.0)
    solution = torch.linalg.lstsq(scaled.T, rows.T, rcond=1e-13, driver="gelsd").solution.T
    parts: Tensor = solution / torch.where(size > 0, size, 1.0).T
    return parts
