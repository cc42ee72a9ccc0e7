"""Files: written whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a hidden name next to ``path``; what is written there takes its place at the end.

    After an error nothing is left, and what was there before is untouched.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that nobody ever sees half of it."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
