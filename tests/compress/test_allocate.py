import numpy as np
import pytest
import torch
from pydantic import ValidationError

from slimface.compress.prune.allocate import Uniform, choose
from slimface.model.channels import ChannelGroup


def groups(*sizes: int) -> list[ChannelGroup]:
    return [ChannelGroup(f"g{size}", size, ()) for size in sizes]


def test_the_rate_is_met_to_half_a_channel() -> None:
    assert Uniform(rate=0.3)(groups(16, 8, 4)) == {"g16": 5, "g8": 2, "g4": 1}


def test_published_rounding_removes_too_little_of_narrow_layers() -> None:
    """int(rate * n): nominal 10 % is 1 of 16 and none of 8 and 4."""
    down = Uniform(rate=0.1, rounding="down")
    assert down(groups(16, 8, 4)) == {"g16": 1, "g8": 0, "g4": 0}


def test_binary_fractions_do_not_lose_a_channel() -> None:
    assert Uniform(rate=0.3, rounding="down")(groups(10)) == {"g10": 3}


def test_at_least_one_channel_stays() -> None:
    assert Uniform(rate=0.99)(groups(2, 3)) == {"g2": 1, "g3": 2}


def test_widths_are_rounded_up_to_the_multiple() -> None:
    kept = {f"g{n}": n - r for n, r in ((16, 8), (12, 4), (6, 0))}
    removed = Uniform(rate=0.4, multiple_of=8)(groups(16, 12, 6))
    assert {n: int(n[1:]) - r for n, r in removed.items()} == {**kept, "g16": 16, "g12": 8}


def test_what_cannot_be_cut_is_left_out() -> None:
    fixed = ChannelGroup("heads", 4, (), prunable=False, reason="each output has a meaning")
    assert Uniform(rate=0.5)([fixed, *groups(4)]) == {"g4": 2}


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ValidationError):
        Uniform(rate=rate)


def test_the_least_important_go_and_the_rest_stays_in_order() -> None:
    keep = choose({"a": torch.tensor([3.0, 1, 2, 0])}, {"a": 2})
    np.testing.assert_array_equal(keep["a"], [0, 2])


def test_nothing_to_remove_keeps_the_group_out_of_the_surgery() -> None:
    assert choose({"a": torch.ones(3)}, {"a": 0}) == {}
