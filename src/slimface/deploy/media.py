"""Pictures, folders, videos and webcams, one frame at a time, with limits on what is decoded."""

import glob
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from slimface.deploy.container import check_size, read_header
from slimface.deploy.decode import Reduction, decode
from slimface.deploy.pixels import Picture as Picture
from slimface.deploy.video import VIDEO_SUFFIXES, Video, opencv_for, read_video
from slimface.errors import DataError, MissingError, SlimfaceError, UsageError

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded unless the caller allows more."""

MAX_BYTES = 512 * 2**20
"""Largest file that is read as a picture."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture to look at, from a file, a video or a camera."""

    name: str
    """Path inside the folder that was asked for; ``clip.mp4/000012`` for a frame of a video."""

    picture: Picture
    read_ms: float
    video: Video | None = None
    """The video it belongs to; None for a picture of its own."""


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to read: a picture file, a video file, or a camera by its number."""

    name: str
    path: Path | None
    """None for a camera."""

    is_picture: bool


def read_picture(
    source: str | Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    reduction: Reduction = 1,
    upright: bool = True,
) -> Picture:
    """Decode a JPEG, PNG, WebP or BMP to 8-bit RGB, turned ``upright`` as its EXIF says.

    What the file is decided by its first bytes, never by its name. Its size is read from its
    header before any pixel is decoded. Grey, palette and CMYK become RGB, 16 bits become 8,
    transparency is dropped, and of an animation the first picture counts. With a ``reduction``
    both sides are divided by it, rounded up; JPEG decodes faster that way.

    Returns:
        Shape ``(height, width, 3)``; it may be read-only.

    Raises:
        MissingError: There is no such file.
        DataError: It is not a picture of these kinds, cut off, damaged, or too large.
    """
    data, where = _contents(source)
    header = read_header(data, where=where)
    check_size(header, where, max_pixels)
    if not header.complete:
        raise DataError(
            f"{where}: the {header.kind} is cut off: the file ends before the picture does.\n"
            "Download or copy it again, or leave it out."
        )
    picture = decode(data, header.kind, reduction=reduction, upright=upright)
    if picture is None:
        raise DataError(
            f"{where}: the {header.kind} is damaged: its header can be read, its pixels cannot.\n"
            "Download or copy it again, or leave it out."
        )
    return picture


def upright_size(source: str | Path | bytes) -> tuple[int, int] | None:
    """Return height and width that ``read_picture`` will give, from the header of a JPEG alone.

    None where only decoding can tell: of other kinds, and where EXIF data may turn the picture.

    Raises:
        MissingError, DataError: As ``read_picture``.
    """
    data, where = _contents(source)
    header = read_header(data, where=where)
    if header.kind != "JPEG" or b"Exif\0\0" in data:
        return None
    return header.height, header.width


def _contents(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "the picture given as bytes"
    path = Path(source)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a picture.\nName a picture inside it.")
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: {size / 2**20:.0f} MB is too much for a picture; "
                f"the limit is {MAX_BYTES // 2**20} MB.\nStore it smaller, or leave it out."
            )
        return path.read_bytes(), str(path)
    except FileNotFoundError:
        raise MissingError(f"there is no file {path}.\nCheck the path.") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk."
        ) from None


def expand(inputs: Sequence[str | Path]) -> list[Source]:
    """Turn files, folders, globs and camera numbers into a list of things to read.

    Folders are searched to any depth, in the order of their names. Each name is unique.

    Raises:
        MissingError: A path leads nowhere, a folder or pattern holds no picture, or OpenCV, which
            reads videos and cameras, is not installed.
    """
    found: list[tuple[Path, Path]] = []
    cameras: list[Source] = []
    for given in inputs:
        text, path = str(given), Path(given)
        if path.is_dir():
            found += [(file, path) for file in _pictures_in(path)]
        elif path.exists():
            found.append((path, path.parent))
        elif text.isdigit():
            cameras.append(Source(f"camera{text}", None, is_picture=False))
        elif glob.has_magic(text):
            found += [(file, file.parent) for file in _matches(text)]
        else:
            raise MissingError(f"there is no file or folder {path}.\nCheck the path.")
    unique = list({file.resolve(): (file, root) for file, root in found}.values())
    names = [file.relative_to(root).as_posix() for file, root in unique]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath([file.resolve().parent for file, _ in unique]))
        names = [file.resolve().relative_to(common).as_posix() for file, _ in unique]
    things = [
        Source(name, file, is_picture=file.suffix.lower() not in VIDEO_SUFFIXES)
        for name, (file, _) in zip(names, unique, strict=True)
    ]
    for thing in (*things, *cameras):
        if not thing.is_picture:
            opencv_for(f"reading {thing.path or thing.name}")
    return things + cameras


def _pictures_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise MissingError(
            f"there is no picture in {folder} (looked for {', '.join(sorted(PICTURE_SUFFIXES))}).\n"
            "Name another folder, or the files themselves."
        )
    if len(pictures) < len(files):
        _log.info("%s: %d other files were left out", folder, len(files) - len(pictures))
    return pictures


def _matches(pattern: str) -> list[Path]:
    # Path.glob knows no absolute patterns.
    files = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [file for file in files if file.is_file()]
    if not files:
        raise MissingError(f"no file matches {pattern}.\nCheck the pattern.")
    return files


def sources(
    inputs: Sequence[str | Path],
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_error: Callable[[str, SlimfaceError], None] | None = None,
) -> Iterator[Frame]:
    """Iterate over the frames of pictures, folders, globs, videos and cameras.

    Args:
        inputs: Paths, patterns, or the number of a camera as a string.
        max_frames: Stop each video or camera after so many frames.
        max_pixels: Larger pictures are refused before they are decoded.
        on_error: Told the name and the error of what cannot be read, and the rest goes on;
            without it the first error is raised.

    Raises:
        MissingError, DataError: As ``expand`` and ``read_picture``; also for a video that cannot
            be opened, or that ends before the last frame it announces.
    """
    return frames(expand(inputs), max_frames=max_frames, max_pixels=max_pixels, on_error=on_error)


def frames(
    things: Iterable[Source],
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_error: Callable[[str, SlimfaceError], None] | None = None,
) -> Iterator[Frame]:
    """Iterate over the frames of what ``expand`` found; see ``sources``."""
    for thing in things:
        try:
            if thing.is_picture and thing.path is not None:
                start = time.perf_counter()
                picture = read_picture(thing.path, max_pixels=max_pixels)
                yield Frame(thing.name, picture, (time.perf_counter() - start) * 1e3)
            else:
                yield from islice(_video_frames(thing, max_pixels), max_frames)
        except (DataError, MissingError) as error:
            if on_error is None:
                raise
            on_error(thing.name, error)


def _video_frames(thing: Source, max_pixels: int) -> Iterator[Frame]:
    read = read_video(thing.name, thing.path, max_pixels=max_pixels)
    for count, (video, picture, read_ms) in enumerate(read):
        yield Frame(f"{thing.name}/{count:06d}", picture, read_ms, video)
