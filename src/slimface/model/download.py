"""Download: one file of known content, whole or not at all."""

import hashlib
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import slimface
from slimface.errors import CheckpointError, MissingError
from slimface.files import beside

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and all that will."""

_CHUNK = 1 << 16
_TIMEOUT_S = 30


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, target: Path, *, sha256: str, size: int, progress: Progress | None = None
) -> None:
    """Fetch ``url`` into ``target``, which appears only once its content is proved.

    Args:
        url: Where the file is.
        target: Where it goes; missing folders are made.
        sha256: What it must hold.
        size: Its bytes; nothing beyond is read.
        progress: Called after every piece.

    Raises:
        MissingError: The network is forbidden (``SLIMFACE_OFFLINE=1``) or absent, or the file is.
        CheckpointError: Something else arrived than was expected.
    """
    if os.environ.get("SLIMFACE_OFFLINE", "0") not in ("", "0"):
        raise MissingError(
            f"{target.name} is not on this machine, and SLIMFACE_OFFLINE forbids the network.\n"
            f"{_by_hand(url, target, sha256)}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside(target) as part:
            found = _receive(url, part, size=size, progress=progress)
            if found != sha256:
                raise CheckpointError(
                    f"{url} sent a file with SHA-256 {found[:12]}…, expected {sha256[:12]}….\n"
                    "It was changed on the way or at its source and has been thrown away; try "
                    "again, or fetch it from another network."
                )
    except urllib.error.URLError as error:
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise MissingError(
            f"{url} is out of reach ({code}{error.reason}).\n{_by_hand(url, target, sha256)}"
        ) from None
    except (TimeoutError, ConnectionError) as error:
        raise MissingError(
            f"{url}: the connection broke ({error}).\n{_by_hand(url, target, sha256)}"
        ) from None


def extract(archive: Path, member: str, target: Path, *, sha256: str, size: int) -> None:
    """Take one file out of a zip archive; it appears only once its content is proved.

    Raises:
        CheckpointError: The archive is damaged, or does not hold what it should.
    """
    try:
        with zipfile.ZipFile(archive) as file, file.open(member) as stream:
            content = stream.read(size + 1)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
        raise CheckpointError(
            f"{archive} is no archive that holds {member}: {error}.\nDelete it and try again."
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(
            f"{archive}: {member} is not the published file.\nDelete the archive and try again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as part:
        part.write_bytes(content)


def _receive(url: str, part: Path, *, size: int, progress: Progress | None) -> str:
    request = urllib.request.Request(
        url, headers={"User-Agent": f"slimface/{slimface.__version__}"}
    )
    digest = hashlib.sha256()
    received = 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, part.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            received += len(chunk)
            if received > size:
                raise CheckpointError(
                    f"{url} sends more than the {size:,} bytes this file has.\n"
                    "Something else stands there now; update slimface."
                )
            digest.update(chunk)
            file.write(chunk)
            if progress is not None:
                progress(received, size)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _by_hand(url: str, target: Path, sha256: str) -> str:
    return (
        f"Fetch {url} by other means and put it at {target} (SHA-256 {sha256[:12]}…), or name the "
        "folder it is in with SLIMFACE_WEIGHTS."
    )
