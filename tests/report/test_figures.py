import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimface.report.figures import Axis, Series, columns, fitted, lines, skyline
from slimface.report.markup import Html, join, tag

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_a_fitted_axis_holds_every_value_between_round_ends(values: list[float]) -> None:
    axis = fitted("loss", values)
    slack = 1e-9 * max(1, *map(abs, values))
    assert axis.low <= min(values) + slack
    assert max(values) - slack <= axis.high
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    assert math.isclose(ticks[0], axis.low, abs_tol=slack)


def test_values_all_equal_still_make_an_axis() -> None:
    axis = fitted("loss", [2.0, 2.0])
    assert axis.low < 2 < axis.high


def test_a_line_goes_from_its_first_point_to_its_last() -> None:
    series = Series("loss", "after", [(0, 0), (5, 10), (10, 5)])
    markup = lines([series], Axis("epoch", 0, 10), Axis("loss", 0, 10), summary="falls")
    assert 'd="M0 100L50 0L100 50"' in markup


def test_a_curve_of_many_points_is_thinned_but_keeps_its_ends() -> None:
    points = [(i / 1e5, 1 - i / 1e5) for i in range(100_001)]
    series = Series("hard", "after", points)
    markup = lines([series], Axis("recall", 0, 1), Axis("precision", 0, 1), summary="falls")
    assert len(markup) < 10_000
    assert 'd="M0 0L' in markup
    assert "L100 100" in markup


def test_columns_without_a_value_are_not_drawn() -> None:
    axis = Axis("AP", 0, 100)
    markup = columns(["small"], [(None, 40.0)], axis, summary="AP", notes=["small: 40"])
    assert markup.count('class="bar') == 1
    assert 'height="40"' in markup


def test_a_skyline_is_as_high_as_its_widest_layer() -> None:
    markup = skyline([("stem", 100, 50), ("head", 20, 20)], summary="widths", label="channels")
    heights = [float(height) for height in re.findall(r'width="[\d.]+" height="([\d.]+)"', markup)]
    assert heights == [100, 50, 20, 20]
    assert "<title>stem: 100 → 50</title>" in markup


@pytest.mark.parametrize("text", ["<b>", '"', "'", "&", "</svg><script>"])
def test_text_and_attributes_are_escaped(text: str) -> None:
    markup = tag("text", text, aria_label=text)
    assert markup.count("<") == 2
    assert markup.count('"') == 2


def test_markup_is_not_escaped_twice() -> None:
    assert join(tag("b", "&"), "&") == "<b>&amp;</b>&amp;"
    assert tag("i", Html("&amp;")) == "<i>&amp;</i>"
