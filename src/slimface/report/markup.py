"""Markup: HTML and SVG elements whose text and attributes are always escaped."""

import html


class Html(str):
    """Markup that may enter a page as it is; any other text is escaped."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def tag(name: str, *children: str, **attributes: object) -> Html:
    """Return the element ``name`` around ``children``.

    Attribute names are Python's: ``class_`` is ``class``, ``stroke_width`` is ``stroke-width``.
    An attribute that is None is left out.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{pairs}>{join(*children)}</{name}>")


def join(*parts: str) -> Html:
    """Return ``parts`` one after the other, escaping whatever is not markup already."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))
