import pytest

from slimface.report import quantities


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1000"),
        (92_208, "92.2 k"),
        (365_400_000, "365 M"),
        (1.07e9, "1.07 G"),
        (2e9, "2 G"),
    ],
)
def test_large_numbers_have_three_digits(value: float, text: str) -> None:
    assert quantities.brief(value) == text


def test_sizes_have_units() -> None:
    assert quantities.size(431_000) == "431 kB"
    assert quantities.size(12) == "12 B"


@pytest.mark.parametrize(
    ("value", "text"), [(-1.64, "−1.6"), (0.04, "±0"), (-0.04, "±0"), (2.0, "+2.0")]
)
def test_changes_have_a_sign_unless_they_round_to_none(value: float, text: str) -> None:
    assert quantities.signed(value) == text


def test_durations_have_two_units_at_most() -> None:
    assert quantities.duration(7.25) == "7.25 s"
    assert quantities.duration(60) == "1 min"
    assert quantities.duration(3599.6) == "1 h 0 min"
    assert quantities.duration(9000) == "2 h 30 min"


def test_enumerations_read_as_spoken() -> None:
    assert quantities.spoken([]) == ""
    assert quantities.spoken(["a"]) == "a"
    assert quantities.spoken(["a", "b", "c"]) == "a, b and c"
