"""Files: written whole, or not at all; and the folder of what is kept between runs."""

import os
import shutil
import tempfile
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


@contextmanager
def together(path: Path) -> Iterator[Path]:
    """Give the name of ``path`` in a hidden folder next to it, for a file that has companions.

    All that is written into that folder moves next to ``path`` at the end, ``path`` itself last.
    After an error nothing is left, and what was there before is untouched.
    """
    with tempfile.TemporaryDirectory(prefix=f".{os.getpid()}-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        yield part
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == part):
            target = path.with_name(file.name)
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            file.replace(target)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that nobody ever sees half of it."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


def home() -> Path:
    """Return the folder of what is kept between runs: ``SLIMFACE_HOME``, or the user's cache."""
    return Path(os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface")
