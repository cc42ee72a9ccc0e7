"""Verify, offline: is a bundle whole, and does it find the same faces here?"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from slimface.core.bundle import Bundle, ModelFile, read_bundle
from slimface.core.faces import Floats
from slimface.deploy.pipeline import Pipeline
from slimface.errors import CheckpointError, MissingError, SlimfaceError
from slimface.export.golden import (
    BOX_PX,
    IMAGES,
    SCORE,
    Golden,
    differences,
    fed,
    read_golden,
)
from slimface.files import SEAL
from slimface.loading import load

SPEC = "spec.json"

GAPS = {"float32": 2e-3, "float16": 5e-2, "int8": 0.3}
"""Largest difference of an output, as a share of the largest number in it."""

FACES = {"float32": (BOX_PX, SCORE), "float16": (2.0, 0.03), "int8": (6.0, 0.2)}
"""Largest differences of a corner in pixels, and of a score."""

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<path>.+)")
_MAX_LIST_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    """``models/model.onnx: faces``."""

    verdict: Literal["passed", "failed", "not run"]
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def verify(folder: Path, *, threads: int | None = None) -> Iterator[Check]:
    """Check a bundle: digests, spec, and each file on the golden picture.

    Args:
        folder: The bundle.
        threads: Threads to compute with; None leaves it to the runtimes.

    Yields:
        One result after the other, as soon as it is there. A file whose digest is wrong is never
        opened; a runtime that is not installed is named as ``not run``.

    Raises:
        MissingError: There is no such folder, or it is no bundle.
        CheckpointError: Its list of digests cannot be read.
    """
    listed = read_digests(folder)
    broken = set()
    for path, digest in listed.items():
        wrong = _wrong(folder / path, digest)
        if wrong:
            broken.add(path)
            yield Check(path, "failed", wrong)
    if not broken:
        yield Check(SEAL, "passed", f"{len(listed)} files")
    extra = [path for path in _present(folder) if path not in listed]
    if extra:
        shown = ", ".join(extra[:5]) + (" …" if len(extra) > 5 else "")
        yield Check("other files", "not run", f"{len(extra)} that are not listed: {shown}")
    if SPEC not in listed or SPEC in broken:
        if SPEC not in broken:
            yield Check(SPEC, "failed", f"it is not listed in {SEAL}")
        return
    try:
        bundle = read_bundle((folder / SPEC).read_bytes(), where=SPEC)
    except SlimfaceError as error:
        yield Check(SPEC, "failed", _first_line(error))
        return
    yield Check(SPEC, "passed", f"{bundle.name}, version {bundle.version}")
    for entry in bundle.files:
        yield from _file(folder, bundle, entry, listed, broken, threads)


def read_digests(folder: Path) -> dict[str, str]:
    """Read the list of digests of a sealed folder: path -> SHA-256.

    Raises:
        MissingError: There is no such folder, or no list in it.
        CheckpointError: A line of it is no digest and path, or a path leads out of the folder.
    """
    seal = folder / SEAL
    if not seal.is_file():
        what = f"{folder} has no {SEAL}" if folder.is_dir() else f"there is no folder {folder}"
        raise MissingError(
            f"{what}, so it is no bundle.\nMake one with: slimface export MODEL --format bundle"
        )
    with seal.open("rb") as file:
        text = file.read(_MAX_LIST_BYTES).decode("utf-8", errors="replace")
    listed: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line)
        parts = Path(found["path"]).parts if found else ()
        if found is None or Path(found["path"]).is_absolute() or ".." in parts:
            raise CheckpointError(
                f"{seal}:{number}: '{line[:100]}' is not a SHA-256 and a path in the folder.\n"
                "The list is damaged; copy the bundle again."
            )
        listed[found["path"]] = found["digest"]
    if not listed:
        raise CheckpointError(f"{seal} lists no file.\nCopy the bundle again.")
    return listed


def _wrong(path: Path, digest: str) -> str:
    """Return what is wrong with a file; nothing if it is the one that was listed."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "" if found == digest else "its SHA-256 is another: damaged, cut off or changed"


def _present(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path != SEAL)


def _file(
    folder: Path,
    bundle: Bundle,
    entry: ModelFile,
    listed: Collection[str],
    broken: set[str],
    threads: int | None,
) -> Iterator[Check]:
    """Check one file of a bundle."""
    own = _belonging(bundle, entry, listed)
    if broken.intersection(own) or not own:
        yield Check(entry.path, "not run", "its files are not those that were listed")
        return
    unlisted = [
        path.name
        for path in (folder / entry.path).parent.iterdir()
        if path.is_file() and path.relative_to(folder).as_posix() not in listed
    ]
    if unlisted:
        yield Check(entry.path, "not run", f"beside it lies what is not listed: {unlisted[0]}")
        return
    try:
        proof = read_golden(folder / entry.golden)
        pipeline = load(folder / entry.path, threads=threads)
    except MissingError as error:
        yield Check(entry.path, "not run", _first_line(error))
        return
    except SlimfaceError as error:
        yield Check(entry.path, "failed", _first_line(error))
        return
    yield from _answers(bundle, entry, pipeline, proof)


def _belonging(bundle: Bundle, entry: ModelFile, listed: Collection[str]) -> set[str]:
    """Return the listed files that a model file needs: its golden ones, and what lies beside it."""
    others = {other.path for other in bundle.files} - {entry.path}
    beside = str(PurePosixPath(entry.path).parent)
    folders = (f"{entry.golden}/", f"{entry.path}/")
    return {
        path
        for path in set(listed) - others
        if path.startswith(folders) or str(PurePosixPath(path).parent) == beside
    }


def _answers(
    bundle: Bundle, entry: ModelFile, pipeline: Pipeline, proof: Golden
) -> Iterator[Check]:
    """Compare what a file makes of the golden picture, step by step."""
    if pipeline.spec != bundle.spec:
        yield Check(entry.path, "failed", f"its own spec is another than that in {SPEC}")
        return
    if pipeline.canvas != entry.canvas:
        yield Check(entry.path, "failed", f"its canvas is {pipeline.canvas}, not {entry.canvas}")
        return
    where = f"{entry.path} in {pipeline.runtime}"
    try:
        if proof.tensors:
            allowed = {name: _input_gap(pipeline, proof, name) for name in IMAGES}
            yield _compared(f"{where}: input", _inputs(pipeline, proof), allowed)
            outputs = _outputs(pipeline, proof)
            allowed = dict.fromkeys(outputs, GAPS[entry.precision])
            yield _compared(f"{where}: tensors", outputs, allowed)
        box_px, score = FACES[entry.precision]
        wrong = differences(proof.faces, pipeline.detect(proof.picture), box_px=box_px, score=score)
    except SlimfaceError as error:
        yield Check(where, "failed", _first_line(error))
        return
    yield Check(
        f"{where}: faces",
        "failed" if wrong else "passed",
        "; ".join(wrong) or f"{len(proof.faces)} found",
    )


Pairs = dict[str, tuple[Floats, Floats]]


def _inputs(pipeline: Pipeline, proof: Golden) -> Pairs:
    given = fed(pipeline, proof.picture)
    return {name: (proof.tensors[name], given[name]) for name in IMAGES}


def _input_gap(pipeline: Pipeline, proof: Golden, name: str) -> float:
    """How far an input may be off, as a share: one byte where resizing rounds, else nothing."""
    room = pipeline.canvas or proof.picture.shape[:2]
    fits = proof.picture.shape[0] <= room[0] and proof.picture.shape[1] <= room[1]
    if name == "images" and fits:
        return 1e-5
    largest = float(np.abs(proof.tensors[name]).max())
    return max(1e-5, 1.01 * pipeline.spec.preprocess.scale / max(largest, 1e-6))


def _outputs(pipeline: Pipeline, proof: Golden) -> Pairs:
    answer = pipeline.network(proof.tensors["images"])
    return {
        name: (wanted, np.asarray(getattr(answer, name, None), dtype=np.float32))
        for name, wanted in proof.tensors.items()
        if name not in IMAGES
    }


def _compared(what: str, pairs: Pairs, allowed: Mapping[str, float]) -> Check:
    """Compare tensors, as a share of the largest number of each; say the one that is farthest."""
    gaps = {}
    for name, (wanted, found) in pairs.items():
        if wanted.shape != found.shape:
            return Check(what, "failed", f"{name} has shape {found.shape}, not {wanted.shape}")
        far = np.abs(wanted - found).max() / max(float(np.abs(wanted).max()), 1e-6)
        gaps[name] = float(np.nan_to_num(far, nan=np.inf))
    worst = max(gaps, key=lambda name: gaps[name] / allowed[name])
    detail = f"{worst} {gaps[worst]:.1e} apart, {allowed[worst]:.0e} allowed"
    return Check(what, "passed" if gaps[worst] <= allowed[worst] else "failed", detail)


def _first_line(error: SlimfaceError) -> str:
    return str(error).partition("\n")[0]
