"""Crop sets: crops on disk, made by several processes, the same bytes whatever their number.

A folder holds

    crops.json          what was cut from what, and the SHA-256 of each shard
    shard-00000.npy     crops of 32 pictures, as NumPy records; see ``crops.record_type``

A shard depends on its pictures, the nets before, the rules and the seed alone. Each is written
whole and then noted; a run that was stopped goes on with the shards that are missing.
"""

import hashlib
import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.boxes import Indices
from slimface.core.spec import CascadeSpec
from slimface.core.value import Value
from slimface.data.crops import SIDES, Cuts, Cutter, Finder, Kind, Net, Records, record_type
from slimface.data.pictures import Annotated, PictureSet
from slimface.errors import DataError, MissingError, UsageError
from slimface.files import beside, make_folder, write_text

log = logging.getLogger(__name__)

LIST = "crops.json"
AS_PUBLISHED = Cuts()
VERSION = 2
PICTURES = 32
"""Pictures a shard: what is lost at most when a run is stopped."""

Progress = Callable[..., Any]


class Plan(Value):
    """What is cut from what: equal plans give equal crops."""

    version: int = VERSION
    """Raised whenever the same plan would give other crops."""

    net: Net
    cuts: Cuts = Cuts()
    seed: int = 0
    spec: CascadeSpec
    pictures: str
    """Fingerprint of the set of pictures."""

    before: str = ""
    """Fingerprint of the nets that mined them; empty for the first net."""


class Shard(Value):
    """One file of a crop set."""

    file: str
    sha256: str
    counts: dict[str, int]
    """Crops of each kind."""


class CropList(Value):
    """What ``crops.json`` says."""

    plan: Plan
    planned: int
    """Shards once all is done."""

    shards: Mapping[int, Shard] = {}
    """Number -> those that are done."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a process gets the nets before: a picklable function, so that each opens its own."""

    open: Callable[[], Finder]
    fingerprint: str


def make_crops(
    folder: Path,
    pictures: PictureSet,
    net: Net,
    spec: CascadeSpec,
    *,
    before: Opening | None = None,
    cuts: Cuts = AS_PUBLISHED,
    seed: int = 0,
    workers: int = 1,
    track: Progress = lambda items, description, total=None: items,
) -> "CropSet":
    """Cut the crops of a net into ``folder``, or what is still missing there.

    Args:
        folder: Made if it is not there.
        pictures: What to cut from.
        net: Which net is to learn from them.
        spec: The rules of its cascade.
        before: The nets before it; needed for all but the first.
        cuts: Which crops to cut.
        seed: Every random choice follows from it.
        workers: Processes; with 1 or 0 it is done here.
        track: ``track(items, description, total=...)`` iterates over items and may draw a bar.

    Raises:
        UsageError: The folder holds other crops, there are no pictures, or the nets before are
            missing.
        MissingError, DataError: A picture is not there or cannot be read; what is done is kept.
    """
    if (before is None) != (net == "pnet"):
        raise UsageError(
            f"{net} learns from {'drawn crops' if net == 'pnet' else 'what nets let through'}.\n"
            "Give the nets before it, for all nets but the first."
        )
    plan = Plan(
        net=net,
        cuts=cuts,
        seed=seed,
        spec=spec,
        pictures=pictures.fingerprint(),
        before=before.fingerprint if before else "",
    )
    shards = [pictures.pictures[i : i + PICTURES] for i in range(0, len(pictures), PICTURES)]
    if not shards:
        raise UsageError(f"{pictures.name} has no pictures.\nCheck the folder.")
    found = _begin(folder, plan, len(shards))
    missing = [i for i in range(len(shards)) if i not in found.shards]
    cutter = _Work(plan, before.open if before else None)
    done = _finished(cutter, {i: shards[i] for i in missing}, folder, workers)
    for i, shard in track(done, f"crops of {net}", total=len(missing)):
        both = dict(sorted({**found.shards, i: shard}.items()))
        found = found.model_copy(update={"shards": both})
        _note(folder, found)
    crops = CropSet.open(folder, verify=False)
    log.info("%s: %s", folder, crops)
    return crops


def _begin(folder: Path, plan: Plan, planned: int) -> CropList:
    """Return what of a plan is done in a folder already."""
    make_folder(folder)
    if not (folder / LIST).exists():
        return CropList(plan=plan, planned=planned)
    found = _read_list(folder)
    if found.plan != plan:
        differing = [
            name for name in Plan.model_fields if getattr(found.plan, name) != getattr(plan, name)
        ]
        raise UsageError(
            f"{folder} holds crops of another plan (other {', '.join(differing)}).\n"
            "Name another folder, or remove this one."
        )
    whole = {
        i: shard
        for i, shard in found.shards.items()
        if (folder / shard.file).is_file() and _sha256(folder / shard.file) == shard.sha256
    }
    return found.model_copy(update={"shards": whole})


def _note(folder: Path, found: CropList) -> None:
    write_text(folder / LIST, found.model_dump_json(indent=1) + "\n")


def _read_list(folder: Path) -> CropList:
    path = folder / LIST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(
            f"{folder} holds no crops: there is no {LIST} in it.\n"
            "Make them with: slimface data crops"
        ) from None
    try:
        json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON ({error}).\nRemove the folder and make the crops again."
        ) from None
    return CropList.parse(text, where=str(path))


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process needs to know to cut a shard."""

    plan: Plan
    open: Callable[[], Finder] | None

    def cutter(self) -> Cutter:
        plan = self.plan
        finder = self.open() if self.open else None
        return Cutter(plan.net, plan.spec, plan.cuts, plan.seed, finder)


_here: list[Cutter] = []
"""The cutter of a worker process, made once."""


def _start_worker(work: _Work) -> None:
    # The processes are the parallelism; threads inside them would only fight for the cores.
    cv2.setNumThreads(0)
    if work.open is not None:
        import torch

        torch.set_num_threads(1)
    _here[:] = [work.cutter()]


def _cut_there(pictures: Sequence[Annotated], path: Path) -> Shard:
    return _cut_shard(_here[0], pictures, path)


def _cut_shard(cutter: Cutter, pictures: Sequence[Annotated], path: Path) -> Shard:
    records = cutter.records(pictures)
    with beside(path) as part, part.open("wb") as file:
        np.save(file, records, allow_pickle=False)
    kinds = Counter(records["kind"].tolist())
    counts = {kind.name.lower(): kinds[kind] for kind in Kind}
    return Shard(file=path.name, sha256=_sha256(path), counts=counts)


def _finished(
    work: _Work, shards: dict[int, Sequence[Annotated]], folder: Path, workers: int
) -> Iterator[tuple[int, Shard]]:
    """Cut shards, and yield them as they are done."""
    places = {i: folder / f"shard-{i:05d}.npy" for i in shards}
    if workers <= 1 or len(shards) <= 1:
        cutter = work.cutter() if shards else None
        for i, pictures in shards.items():
            assert cutter is not None
            yield i, _cut_shard(cutter, pictures, places[i])
        return
    # A forked process could inherit a lock that a thread of torch holds.
    start = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, start, initializer=_start_worker, initargs=(work,))
    try:
        numbers = {pool.submit(_cut_there, shards[i], places[i]): i for i in shards}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class CropSet:
    """The crops of one net, read from disk where they are needed."""

    def __init__(self, plan: Plan, shards: Sequence[Records], index: Indices | None = None) -> None:
        self.plan = plan
        self._shards = shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self._index = np.arange(self._starts[-1]) if index is None else index

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Self:
        """Open a folder of crops.

        Raises:
            MissingError: There are none.
            DataError: They are not all there, or a shard is not what it was.
        """
        listed = _read_list(Path(folder))
        if listed.plan.version != VERSION:
            raise DataError(
                f"{folder} holds crops of version {listed.plan.version}; this slimface learns from "
                f"version {VERSION}.\nRemove the folder and run `slimface data crops` again."
            )
        if len(listed.shards) < listed.planned:
            raise DataError(
                f"{folder}: only {len(listed.shards)} of {listed.planned} shards are done.\n"
                "Run `slimface data crops` again; it goes on where it stopped."
            )
        shards = [
            _open_shard(Path(folder) / shard.file, shard, listed.plan.net, verify)
            for _, shard in sorted(listed.shards.items())
        ]
        return cls(listed.plan, shards)

    def __len__(self) -> int:
        return len(self._index)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts().items())
        return f"{len(self):,} crops for {self.plan.net}: {counts}"

    @property
    def side_px(self) -> int:
        """Height and width of the crops."""
        return SIDES[self.plan.net]

    def fingerprint(self) -> str:
        """Return a SHA-256 that equal crops of equal plans have in common."""
        return self.plan.fingerprint()

    def take(self, places: npt.ArrayLike) -> Records:
        """Return the crops at some places, in the order given."""
        wanted = self._index[np.asarray(places, dtype=np.intp)]
        records: Records = np.empty(len(wanted), record_type(self.side_px))
        shard = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            records[here] = self._shards[number][wanted[here] - self._starts[number]]
        return records

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one field of all crops: ``kind``, ``group``, ``offsets``, ``landmarks``."""
        whole = [np.asarray(shard[name]) for shard in self._shards]
        return np.concatenate(whole)[self._index]

    def counts(self) -> dict[str, int]:
        """Return the number of crops of each kind."""
        kinds = Counter(self.column("kind").tolist())
        return {kind.name.lower(): kinds[kind] for kind in Kind}

    def split(self, holdout: float) -> tuple[Self, Self]:
        """Divide by picture, as ``train.step.split`` does: none has crops on both sides."""
        aside = self.column("group") < holdout * 2**32
        learn, check = self._index[~aside], self._index[aside]
        kind = type(self)
        return kind(self.plan, self._shards, learn), kind(self.plan, self._shards, check)


def _open_shard(path: Path, shard: Shard, net: Net, verify: bool) -> Records:
    remedy = "Remove it and run `slimface data crops` again, which makes what is missing."
    if Path(shard.file).name != shard.file or not path.is_file():
        raise DataError(f"{path}: the shard is listed and not there.\n{remedy}")
    if verify and _sha256(path) != shard.sha256:
        raise DataError(f"{path} is not what was written: its checksum differs.\n{remedy}")
    if not sum(shard.counts.values()):
        return np.zeros(0, record_type(SIDES[net]))
    try:
        records: Records = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no file of crops ({error}).\n{remedy}") from None
    if records.dtype != record_type(SIDES[net]):
        raise DataError(f"{path} holds other records than crops of {net}.\n{remedy}")
    return records
