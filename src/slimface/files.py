"""Files: written whole, or not at all; and the folder of what is kept between runs."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slimface.errors import UsageError

SEAL = "SHA256SUMS"
"""File in a folder that is made as a whole: the digests of all others."""


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


def bytes_of(path: Path) -> int:
    """Return how many bytes a file has, or all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def make_folder(folder: Path, remedy: str = "Choose another place.") -> None:
    """Make a folder, with those above it, unless it is there.

    Raises:
        UsageError: It cannot be made; ``remedy`` says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: the folder cannot be made ({error.strerror}).\n{remedy}"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that nobody ever sees half of it."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


def home() -> Path:
    """Return the folder of what is kept between runs: ``SLIMFACE_HOME``, or the user's cache."""
    return Path(os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface")


@contextmanager
def beside_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder next to ``folder``, which it replaces at the end, sealed.

    After an error nothing is left, and what was there before is untouched.

    Raises:
        UsageError: There is a folder already, with something in it that was not made here.
    """
    if (
        folder.exists()
        and not (folder / SEAL).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise UsageError(
            f"{folder} is there already and has no {SEAL}: slimface did not make it.\n"
            "Nothing was replaced. Choose another folder, or remove it yourself."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{os.getpid()}-", dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        part.mkdir()
        yield part
        seal(part)
        if folder.is_dir():
            folder.rename(Path(scratch) / "replaced")
        part.rename(folder)


def seal(folder: Path) -> None:
    """Write the digests of all files of a folder, as ``sha256sum --check`` reads them."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    write_text(folder / SEAL, "".join(lines))
