"""Zoo: names of published models -> spec and weights.

A family's file may say, besides its module: ``ENTRIES``, what is published of it;
``untrained(name)``, what can be trained under other names; ``READERS``, what reads published files
that are not torch's, by suffix.

Weights are looked for in the folders of ``SLIMFACE_WEIGHTS`` (separated as in ``PATH``), then in
the cache (``SLIMFACE_HOME``, else ``~/.cache/slimface``), and else downloaded into the cache. A
file counts only if its SHA-256 is the published one.
"""

import difflib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from torch import Tensor

from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.model.build import ARCHITECTURES, build, kind_of
from slimface.model.checkpoint import drop_aliases, read_published, rename, restore
from slimface.model.detector import Detector
from slimface.model.download import Progress, download, extract, sha256_of
from slimface.model.profile import Profile, profile
from slimface.model.published import Entry, WeightFile

log = logging.getLogger(__name__)

DEFAULT = "eresfd"
"""The architecture whose first model is the default."""

Reader = Callable[[Path], Mapping[str, Tensor]]


@cache
def entries() -> tuple[Entry, ...]:
    """Return every published model, default first: the ``ENTRIES`` of all families."""
    return tuple(known for family in _families() for known in getattr(family, "ENTRIES", ()))


def names() -> list[str]:
    """Return the names of all published models, default first."""
    return [known.name for known in entries()]


def entry(name: str) -> Entry:
    """Return the published model of this name; a trainable one, without files, if it has none.

    Raises:
        UsageError: There is none; the message says the nearest.
    """
    for known in entries():
        if known.name == name:
            return known
    for family in _families():
        trainable: Entry | None = getattr(family, "untrained", _nothing)(name)
        if trainable is not None:
            return trainable
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"No published model is called {name!r}.\n{hint}Known: {', '.join(names())} (slimface zoo)."
    )


@cache
def cost(name: str) -> Profile:
    """Return parameters, MACs and memory of a published model at 640x480, counted on it."""
    return profile(build(entry(name).spec, seed=0), 480, 640)


def load(name: str, *, progress: Progress | None = None) -> Detector:
    """Return a published model with its published weights, in evaluation mode.

    Args:
        name: As in ``slimface zoo``.
        progress: Called with bytes done and bytes in all while a file is downloaded.

    Raises:
        UsageError: No model has this name.
        MissingError: Its weights are nowhere on this machine and cannot be downloaded, or nobody
            has published any.
        CheckpointError: A file does not hold what it should.
    """
    known = entry(name)
    if not known.files:
        raise MissingError(
            f"Nobody has published weights of {name}.\nTrain it: slimface train {name} --scratch"
        )
    if known.restricted:
        log.warning(
            "%s: the weights of %s are for %s use; so is everything made from them.",
            name,
            known.origin,
            known.licence,
        )
    tensors: dict[str, Tensor] = {}
    for file in known.files:
        part = _read(locate(file, progress=progress), known)
        tensors.update({file.prefix + key: tensor for key, tensor in part.items()})
    return _assembled(known, tensors, where=f"weights of {name}")


def import_weights(path: Path | str | Mapping[str, Path], *, like: str) -> Detector:
    """Return the model that a foreign ``.pth`` file holds, read as a published one is.

    Args:
        path: The file; or key prefix -> file where the tensors are spread over several, as in
            ``{"base.": ..., "loc.": ..., "conf.": ...}``.
        like: Name of the published model whose variant the weights were trained as. Variants
            have equal keys and shapes, so nothing in the file says it.

    Raises:
        CheckpointError: The file is known to belong to another variant, or does not fit.
        MissingError: There is no such file.
        UsageError: No model is called ``like``.
    """
    known = entry(like)
    files = (
        {prefix: Path(part) for prefix, part in path.items()}
        if isinstance(path, Mapping)
        else {"": Path(path)}
    )
    tensors: dict[str, Tensor] = {}
    for prefix, file in files.items():
        part = _read(file, known)
        _refuse_wrong_pairing(file, known)
        tensors.update({prefix + key: tensor for key, tensor in part.items()})
    return _assembled(known, tensors, where=", ".join(str(file) for file in files.values()))


def recognise(path: Path | str) -> Entry | None:
    """Return the published model a file belongs to, by its content; None for any other file."""
    digest = sha256_of(Path(path))
    for known in entries():
        if any(file.sha256 == digest for file in known.files):
            return known
    return None


def locate(file: WeightFile, *, progress: Progress | None = None) -> Path:
    """Return where a published file is on this machine; download it if it is not.

    Raises:
        MissingError: It is not here and cannot be downloaded.
        CheckpointError: Something else arrived.
    """
    found = find(file)
    if found is not None:
        return found
    target = cache_folder() / file.path
    log.info("downloading %s", file.url)
    if file.archive is None:
        download(file.url, target, sha256=file.sha256, size=file.size, progress=progress)
        return target
    archive = cache_folder() / Path(urlsplit(file.url).path).name
    if not archive.is_file():
        download(
            *(file.url, archive),
            sha256=file.archive.sha256,
            size=file.archive.size,
            progress=progress,
        )
    extract(archive, file.archive.member, target, sha256=file.sha256, size=file.size)
    return target


def find(file: WeightFile) -> Path | None:
    """Return where a published file is on this machine, if it is."""
    for candidate in _candidates(file):
        if not candidate.is_file():
            continue
        if candidate.stat().st_size == file.size and sha256_of(candidate) == file.sha256:
            return candidate
        log.warning("%s is not the published file of that name and was passed over", candidate)
    return None


def cache_folder() -> Path:
    """Return where downloaded weights are kept."""
    home = os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface"
    return Path(home) / "weights"


def _candidates(file: WeightFile) -> Iterator[Path]:
    """Under our name and under the publisher's, in its subfolder or not."""
    folders = [
        Path(part) for part in os.environ.get("SLIMFACE_WEIGHTS", "").split(os.pathsep) if part
    ]
    published = Path(unquote(urlsplit(file.url).path)).name
    for folder in folders:
        for name in dict.fromkeys((file.path, Path(file.path).name, published)):
            yield folder / name
    yield cache_folder() / file.path


def _families() -> list[ModuleType]:
    """The files of all architectures, that of the default model first."""
    names = sorted(ARCHITECTURES, key=lambda name: name != DEFAULT)
    files = dict.fromkeys(ARCHITECTURES[name].partition(":")[0] for name in names)
    return [import_module(file) for file in files]


def _nothing(name: str) -> None:
    """What a family without untrained models answers."""


def _read(file: Path, known: Entry) -> Mapping[str, Tensor]:
    """Read a file as torch's, unless the family has a reader for files of its suffix."""
    family = import_module(kind_of(known.spec).__module__)
    read: Reader = getattr(family, "READERS", {}).get(file.suffix, read_published)
    return read(file)


def _assembled(known: Entry, tensors: Mapping[str, Tensor], *, where: str) -> Detector:
    named = rename(tensors, known.renames, where=where)
    named = drop_aliases(named, known.aliases, where=where)
    translated = kind_of(known.spec).translate(named, where=where)
    return restore(known.spec, translated, where=where)


def _refuse_wrong_pairing(file: Path, wanted: Entry) -> None:
    owner = recognise(file)
    if owner is None or _same_variant(owner, wanted):
        return
    raise CheckpointError(
        f"{file} holds the weights of {owner.name} ({owner.origin}), which belong to other anchors "
        f"or another pyramid than those of {wanted.name}: its boxes would be wrong.\n"
        f"Say like={owner.name!r}, or simply load {owner.name!r}."
    )


def _same_variant(first: Entry, second: Entry) -> bool:
    one, other = first.spec, second.spec
    return (one.architecture, one.anchors, one.preprocess, one.codec) == (
        other.architecture,
        other.anchors,
        other.preprocess,
        other.codec,
    )
