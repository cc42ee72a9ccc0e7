"""Matrix: every model in every runtime, precision, size and number of threads, in one table.

What cannot be (a runtime that is not installed, a format that refuses, a process that dies) is a
cell that says why, and stops nothing else.
"""

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slimface.bench.advice import advise
from slimface.bench.contenders import Contender, contenders
from slimface.bench.contestant import Contestant
from slimface.bench.latency import check_numbers, drawn_scene
from slimface.bench.machine import this_machine
from slimface.core.benchmark import Benchmark
from slimface.core.matrix import Cell, Matrix, Quality
from slimface.core.record import Fitted
from slimface.data.pictures import PictureSet
from slimface.deploy.pipeline import Picture, Settings
from slimface.deploy.pixels import resized
from slimface.errors import SlimfaceError
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.scoring import protocol_of
from slimface.evaluate.truth import Truth
from slimface.files import home

log = logging.getLogger(__name__)

T = TypeVar("T")

Track = Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Scored:
    """Annotated pictures that the files of a matrix are scored on."""

    pictures: PictureSet
    truth: Truth
    folder: Path = field(default_factory=lambda: home() / "benchmark" / "detections")
    """Detections are kept here: a file that was scored before is not run again."""


def no_bar(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate without a bar."""
    return items


@dataclass(frozen=True, slots=True)
class Grid:
    """How a matrix is measured."""

    runtimes: Sequence[str] = ()
    """As ``slimface.bench.contenders.runtimes_named`` gives them; none: models as they are."""

    precisions: Sequence[str] = ("float32",)
    sizes: Sequence[tuple[int, int]] = ((480, 640),)
    """Heights and widths of the input."""

    threads: Sequence[int] = (1,)
    rounds: int = 5
    """How many times each file gets its turn."""

    runs: int = 20
    """Detections that count each time."""

    cache: Path | None = None
    """Where exported files are kept; below ``SLIMFACE_HOME`` if None."""

    calibrate_on: str = "drawn"
    """Data for files of eight bits."""


def matrix(
    models: Sequence[str],
    grid: Grid = Grid(),
    *,
    picture: Picture | None = None,
    scored: Scored | None = None,
    track: Track = no_bar,
) -> Iterator[Cell]:
    """Measure models in every way that ``grid`` asks for.

    All files of one size and number of threads are measured in turns, each in its own process.

    Args:
        models: Names of the zoo, checkpoints, exported files, files of rivals.
        grid: Runtimes, precisions, sizes, threads.
        picture: What is detected on while time is taken; a drawn scene if not given.
        scored: What the files are scored on; no AP if not given.
        track: ``track(items, description, total=n)`` iterates and may draw a bar.

    Yields:
        A cell for each combination, as soon as it is known.

    Raises:
        UsageError: There is nothing to measure, or a number makes no sense.
        MissingError, CheckpointError: A model that was named cannot be opened.
    """
    check_numbers(models, grid.sizes, grid.threads, grid.rounds, grid.runs)
    scene = drawn_scene() if picture is None else picture
    plans: list[Contender] = []
    for model in track(models, "export"):
        plans += contenders(
            model, grid.runtimes, grid.precisions, grid.sizes,
            cache=grid.cache, calibrate_on=grid.calibrate_on,
        )  # fmt: skip
    known: dict[tuple[str, int, int], Quality | str | None] = {}
    for height, width in grid.sizes:
        here = [plan for plan in plans if (plan.height, plan.width) == (height, width)]
        small = resized(scene, height, width)
        for threads in grid.threads:
            for cell in _turns(here, threads, small, grid, track):
                key = (cell.file or cell.model, height, width)
                if scored is not None and not cell.refused and key not in known:
                    known[key] = _quality_or_reason(key[0], threads, small, scored, track)
                quality = known.get(key)
                field = "refused" if isinstance(quality, str) else "quality"
                yield cell.model_copy(update={field: quality} if quality else {})


def joined(cells: Sequence[Cell]) -> Matrix:
    """Return cells with what follows from them."""
    return Matrix(cells=tuple(cells), advice=advise(cells))


def _turns(
    plans: Sequence[Contender], threads: int, picture: Picture, grid: Grid, track: Track
) -> Iterator[Cell]:
    """Measure some files side by side; in the order of ``plans``, refused ones included."""
    height, width = picture.shape[:2]
    machine = this_machine()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "picture.npy"
        np.save(place, picture)
        seats = [_Seat(plan, Contestant(plan.source, threads, place)) for plan in plans]
        for seat in track([seat for seat in seats if not seat.refused], "open"):
            with seat.trying():
                stack.enter_context(seat.contestant)
        for _ in track(range(grid.rounds), f"{width}x{height}, threads: {threads}"):
            for seat in seats:
                if not seat.refused:
                    with seat.trying():
                        seat.contestant.run(grid.runs)
        for seat in seats:
            if not seat.refused:
                with seat.trying():
                    seat.benchmark = seat.contestant.finish(height, width, machine)
            yield seat.cell(height, width, threads)


@dataclass
class _Seat:
    """A contender at the table, until something is against it."""

    plan: Contender
    contestant: Contestant
    refused: str = ""
    benchmark: Benchmark | None = None

    def __post_init__(self) -> None:
        self.refused = self.plan.refused

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Turn an error of the library into the reason why this one is refused."""
        try:
            yield
        except SlimfaceError as error:
            self.refused = str(error)
            log.info("%s: %s", self.plan.source, self.refused.partition("\n")[0])

    def cell(self, height: int, width: int, threads: int) -> Cell:
        """Return what is known."""
        plan = self.plan
        opened = self.contestant if self.benchmark else None
        return Cell(
            model=plan.model,
            runtime=opened.runtime if opened else plan.runtime or "?",
            precision=plan.precision or (opened.precision if opened else "?"),
            height=height,
            width=width,
            threads=threads,
            file=plan.source if plan.is_file else None,
            benchmark=self.benchmark,
            refused=self.refused,
        )


def _quality_or_reason(
    source: str, threads: int, picture: Picture, scored: Scored, track: Track
) -> Quality | str | None:
    try:
        return _quality(source, threads, picture, scored, track)
    except SlimfaceError as error:
        return str(error)


def _quality(
    source: str, threads: int, picture: Picture, scored: Scored, track: Track
) -> Quality | None:
    """Score what finds faces, in a process of its own."""
    height, width = picture.shape[:2]
    rule = Fitted(height_px=height, width_px=width)
    asked: Any = {"score_floor": 0.05, "nms_overlap": 0.3, "pre_nms": 5000, "cap": 750}
    protocol = protocol_of(scored.truth, rule, Settings(**asked))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "picture.npy"
        np.save(place, picture)
        with Contestant(source, threads, place) as contestant:
            if not contestant.is_detector:
                return None
            key = f"{contestant.fingerprint()} {protocol.fingerprint()}"
            evaluation = evaluate(
                contestant,
                scored.pictures,
                scored.truth,
                rule=rule,
                **asked,
                folder=scored.folder / hashlib.sha256(key.encode()).hexdigest()[:16],
                progress=track,
                resamples=0,
            )
    return Quality(
        protocol=evaluation.protocol,
        stamp=evaluation.stamp,
        average_precision={one.name: one.average_precision for one in evaluation.subsets},
    )
