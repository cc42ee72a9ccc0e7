"""Quantities: numbers as people read them."""

from collections.abc import Callable, Sequence

Form = Callable[[float], str]
"""How a kind of number is written."""


def count(value: float) -> str:
    """Return a whole number with its thousands apart: ``92,208``."""
    return f"{value:,.0f}"


def brief(value: float) -> str:
    """Return a large number in three digits: ``92.2 k``, ``1.07 G``."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{_three(value / limit)} {unit}"
    return _three(value)


def size(value: float) -> str:
    """Return bytes in three digits and powers of 1000: ``412 kB``."""
    return f"{brief(value)}B" if value >= 1000 else f"{value:.0f} B"


def milliseconds(value: float) -> str:
    """Return a duration given in milliseconds in three digits."""
    return f"{_three(value)} ms"


def points(value: float) -> str:
    """Return a fraction as the field prints an average precision: ``0.833`` is ``83.3``."""
    return f"{100 * value:.1f}"


def sides(width: float, height: float) -> str:
    """Return a width and a height that are never torn apart at the end of a line."""
    return f"{width:g}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{height:g}"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    if seconds < 60:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign and a true minus; what rounds to zero is ``±0``."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return "±0"
    return f"{'−' if value < 0 else '+'}{text}"


def relative(before: float, after: float) -> str:
    """Return the change from ``before`` to ``after`` in percent."""
    return f"{signed(100 * (after - before) / before)} %"


def spoken(items: Sequence[str]) -> str:
    """Return an enumeration: ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def _three(value: float) -> str:
    magnitude = abs(value)
    digits = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if magnitude < 9.995 and value == round(value) else text
