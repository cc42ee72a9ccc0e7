"""Steps in an order that makes no sense are refused, and the one to move is named."""

import pytest

from slimface.errors import RecipeError
from slimface.order import AT_FIRST, FILE, FLOAT, LEARNT, NORMS, ZEROED, Placed, Terms, check

TRAIN = Terms(frozenset({FLOAT, NORMS}), frozenset({LEARNT}), frozenset({ZEROED}))
PRUNE = Terms(frozenset({FLOAT, LEARNT}))
ZERO = Terms(frozenset({FLOAT}), leaves=frozenset({ZEROED}))
SHRINK = Terms(frozenset({ZEROED}), takes=frozenset({ZEROED}))
QAT = Terms(frozenset({FLOAT}), takes=frozenset({FLOAT}))
FOLD = Terms(takes=frozenset({NORMS}))
EXPORT = Terms(leaves=frozenset({FILE}), changes=False)
MEASURE = Terms(frozenset({FILE}), changes=False)
WRITE = Terms(leaves=frozenset({FILE}), changes=False, final=True)
NAMES = {
    "write": WRITE,
    "train": TRAIN, "prune": PRUNE, "zero": ZERO, "shrink": SHRINK, "qat": QAT, "fold": FOLD,
    "export": EXPORT, "measure": MEASURE,
}  # fmt: skip


def walk(text: str, *, learnt: bool = True) -> None:
    steps = [Placed(i, kind, NAMES[kind]) for i, kind in enumerate(text.split(), start=1)]
    check(steps, AT_FIRST | {LEARNT} if learnt else AT_FIRST)


@pytest.mark.parametrize(
    "order",
    [
        "prune train qat export measure",
        "export prune train export measure measure",
        "zero shrink train fold",
        "zero prune shrink",
        "export measure",
        "write prune write measure",
    ],
)
def test_an_order_that_makes_sense_passes(order: str) -> None:
    walk(order)


@pytest.mark.parametrize(
    ("order", "says", "advice"),
    [
        ("qat prune", r"Step 2 \(prune\) changes weights.*step 1 \(qat\)", "step 2 before step 1"),
        ("qat prune train", r"Step 2 \(prune\)", r"Move step 1 behind step 3 \(train\)"),
        ("qat train qat", r"Step 2 \(train\)", r"Move step 1 behind step 3 \(qat\)"),
        ("qat qat", r"Step 2 \(qat\)", r"Leave step 1 \(qat\) or step 2 \(qat\) out"),
        ("fold train", "has folded it", "Move step 2 before step 1"),
        ("shrink", "nothing before it makes any zero", "soft_prune"),
        ("shrink zero", "nothing before it", r"Move step 1 behind step 2 \(zero\)"),
        ("zero train shrink", r"step 2 \(train\) has filled them", "Move step 3 before step 2"),
        ("zero train train shrink", r"step 2 \(train\) has filled them", "step 4 before step 2"),
        ("zero shrink shrink", r"step 2 \(shrink\)", r"Leave step 2 \(shrink\) or step 3"),
        ("measure", "no step before it exports", "Put an export step before it"),
        ("measure export", "no step before it exports", r"Move step 1 behind step 2 \(export\)"),
        ("export prune measure", r"step 2 \(prune\) has made another", "Put an export step betw"),
        ("write prune", r"step 2 \(prune\) makes another", r"Move step 1 behind step 2 \(prune\)"),
        ("write prune train export", "makes another one", r"Move step 1 behind step 3 \(train\)"),
        ("export prune measure export", r"Step 3 \(measure\)", r"Move step 3 behind step 4"),
    ],
)  # fmt: skip
def test_a_step_in_the_wrong_place_is_named_with_where_it_belongs(
    order: str, says: str, advice: str
) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        walk(order)
    last = str(caught.value).splitlines()[-1]
    with pytest.raises(AssertionError, match=advice):
        raise AssertionError(last)


def test_random_weights_are_not_judged_by_what_they_have_learnt() -> None:
    with pytest.raises(RecipeError, match="the weights are random"):
        walk("prune train", learnt=False)
    with pytest.raises(RecipeError, match=r"Move step 1 behind step 2 \(train\)"):
        walk("prune train", learnt=False)
    walk("train prune", learnt=False)


def test_doing_two_things_in_one_asks_for_both_and_leaves_both() -> None:
    both = ZERO | TRAIN
    assert both.needs == {FLOAT, NORMS}
    assert both.leaves == {ZEROED, LEARNT}
    assert (EXPORT | PRUNE).changes and not (EXPORT | MEASURE).changes
    # What a step leaves itself is there after it, whatever it has taken.
    check([Placed(1, "both", both), Placed(2, "shrink", SHRINK)], AT_FIRST)
