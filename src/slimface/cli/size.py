"""Sizes as the command line spells them."""

import re

from slimface.errors import UsageError


def read_size(text: str) -> tuple[int, int]:
    """Return height and width of ``WIDTHxHEIGHT``, such as ``640x480``.

    Raises:
        UsageError: It is not written like that.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text.strip().lower())
    if found is None:
        raise UsageError(
            f"'{text}' is not a size.\nWrite width and height in pixels, such as 640x480."
        )
    return int(found[2]), int(found[1])
