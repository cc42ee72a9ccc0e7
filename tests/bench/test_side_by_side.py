from collections.abc import Callable
from itertools import count

import pytest

from slimface.bench.side_by_side import WARM_UP, _in_turns


class Machine:
    """Whose clock only what runs on it moves, and whose neighbours leave after a while."""

    def __init__(self, busy_for: float) -> None:
        self.seconds = 0.0
        self.busy_for = busy_for
        self.noise = count()
        self.turns = 0

    def now(self) -> float:
        return self.seconds

    def program(self, takes: float) -> Callable[[], None]:
        def run() -> None:
            self.turns += 1
            busy = self.seconds < self.busy_for
            # Each time less busy than before: the least goes on falling.
            self.seconds += takes * (1 + 3 / (1 + 0.1 * next(self.noise)) if busy else 1)

        return run


def test_on_a_quiet_machine_it_takes_the_rounds_that_were_asked_for() -> None:
    machine = Machine(busy_for=0)
    found = _in_turns([machine.program(0.010), machine.program(0.007)], machine.now, 6, 2)
    assert found.tolist() == pytest.approx([10, 7])
    assert machine.turns == 2 * 6 * (WARM_UP + 2)


def test_while_neighbours_slow_all_down_it_goes_on_until_they_have_gone() -> None:
    asked = 6
    busy_for = 1.5 * asked * (WARM_UP + 2) * 0.017
    machine = Machine(busy_for)
    found = _in_turns([machine.program(0.010), machine.program(0.007)], machine.now, asked, 2)
    assert found.tolist() == pytest.approx([10, 7])
    assert machine.turns > 2 * asked * (WARM_UP + 2)


def test_where_they_never_go_it_ends_all_the_same() -> None:
    machine = Machine(busy_for=float("inf"))
    _in_turns([machine.program(0.010)], machine.now, 6, 2)
    assert machine.turns <= 4 * 6 * (WARM_UP + 2)
