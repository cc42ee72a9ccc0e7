"""Order: what a step asks of what came before it, and what it leaves to those behind it.

Each step says so itself (``Step.terms``), and a walk through the steps finds those that stand in
the wrong place. No step knows of another one, so a new step costs its own terms and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slimface.errors import RecipeError

Task = Literal["detection", "cascade", "classification"]
TASKS: frozenset[Task] = frozenset({"detection", "cascade", "classification"})


@dataclass(frozen=True, slots=True)
class State:
    """Something that is true of a model, or is not, between two steps."""

    name: str
    needed: str
    """What a step does that needs it: ``step 3 (prune) …``."""

    taken: str
    """What a step has done that took it away: ``step 2 (train) …``."""

    absent: str
    """Said where no step has ever left it."""

    advice: str
    """What to do where moving a step does not help."""

    between: str = ""
    """What else may be done where a step has taken it away."""


States = frozenset[State]

LEARNT = State(
    "learnt",
    "goes by what the weights have learnt",
    "has made them random",
    "the weights are random",
    "Put a train step before it, or start from trained weights (pretrained: true).",
)
FLOAT = State(
    "float",
    "changes weights of full precision",
    "has tied them to whole numbers",
    "there are none",
    "Start from a model that is not quantised.",
)
NORMS = State(
    "norms",
    "learns with the normalisation of the layers",
    "has folded it into the weights",
    "there is none",
    "Start from a model whose normalisation is not folded.",
)
ZEROED = State(
    "zeroed",
    "removes filters that are zero",
    "has filled them again",
    "nothing before it makes any zero",
    "Leave it out, or put a step before it that zeroes filters, such as soft_prune with end: zero.",
)
FILE = State(
    "file",
    "looks at an exported file",
    "has made another model than the one in the file",
    "no step before it exports one",
    "Put an export step before it.",
    between="put an export step between them",
)
QUANTISED = State(
    "quantised",
    "writes weights that have learnt to be whole numbers",
    "has given up what they had learnt",
    "nothing before it teaches them to",
    "Put a qat step before it.",
)
AT_FIRST = frozenset({FLOAT, NORMS})
"""What is true of every model that a recipe may start from."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a step asks for, and what is true after it that was not, or no longer is."""

    needs: States = frozenset()
    leaves: States = frozenset()
    takes: States = frozenset()
    tasks: frozenset[Task] = TASKS
    """What models it works on."""

    changes: bool = True
    """Whether the model comes out as another one; false: it is only measured, or written."""

    final: bool = False
    """Whether what it writes is meant to be of the finished model."""

    def __or__(self, other: "Terms") -> "Terms":
        """Return the terms of a step that does both in one."""
        return Terms(
            needs=self.needs | other.needs,
            leaves=self.leaves | other.leaves,
            takes=self.takes | other.takes,
            tasks=self.tasks & other.tasks,
            changes=self.changes or other.changes,
            final=self.final or other.final,
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """A step in its place: what it is called, and its terms."""

    number: int
    """From 1 on; 0 is the model that all starts from."""

    kind: str
    terms: Terms

    def __str__(self) -> str:
        return f"step {self.number} ({self.kind})"


def check(steps: Sequence[Placed], start: States) -> States:
    """Refuse an order that makes no sense, and say which step to move.

    Args:
        steps: In order.
        start: What is true, or may be, of the model that they start from.

    Returns:
        What is true after the last one.

    Raises:
        RecipeError: A step needs what no step before it leaves, or what one has taken away.
    """
    state = start
    for at, step in enumerate(steps):
        for need in sorted(step.terms.needs - state, key=lambda one: one.name):
            raise _misplaced(step, need, steps[:at], steps[at + 1 :], start)
        state = _after(state, step.terms)
    _check_finals(steps)
    return state


def _check_finals(steps: Sequence[Placed]) -> None:
    """Refuse what is written for good of a model that is changed once more."""
    written = next((one for one in reversed(steps) if one.terms.final), None)
    later = [one for one in steps if written and one.number > written.number and one.terms.changes]
    if written is None or not later:
        return
    raise RecipeError(
        f"S{str(written)[1:]} writes the finished model, and {later[0]} makes another one of it "
        f"afterwards.\nMove step {written.number} behind {later[-1]}."
    )


def _after(state: States, terms: Terms) -> States:
    lost = terms.takes | ({FILE} if terms.changes else frozenset())
    return (state - lost) | terms.leaves


def _misplaced(
    step: Placed, need: State, before: Sequence[Placed], behind: Sequence[Placed], start: States
) -> RecipeError:
    taker = _taker(need, before, start)
    if taker is None:
        reason = need.absent
        giver = next((one for one in behind if need in one.terms.leaves), None)
        advice = need.advice if giver is None else f"Move step {step.number} behind {giver}."
    else:
        reason = f"{taker} {need.taken}"
        advice = _way_out(step, need, taker, behind)
    return RecipeError(f"S{str(step)[1:]} {need.needed}, and {reason}.\n{advice}")


def _taker(need: State, before: Sequence[Placed], start: States) -> Placed | None:
    """The step that took away what was there; None if it has never been."""
    taker, held = None, need in start
    for one in before:
        holds = need in _after(frozenset({need} if held else ()), one.terms)
        if held and not holds:
            taker = one
        held = holds
    return taker


def _way_out(step: Placed, need: State, taker: Placed, behind: Sequence[Placed]) -> str:
    if taker.kind == step.kind:
        return f"Leave {taker} or {step} out."
    giver = next((one for one in behind if need in one.terms.leaves - one.terms.needs), None)
    if giver is not None:
        return f"Move step {step.number} behind {giver}."
    others = [one for one in behind if need in one.terms.needs]
    if others:
        # All of them want what the one has taken: moving the one is the shorter way.
        return f"Move step {taker.number} behind {others[-1]}."
    way = f"move step {step.number} before {taker}"
    return f"{need.between.capitalize()}, or {way}." if need.between else f"M{way[1:]}."
