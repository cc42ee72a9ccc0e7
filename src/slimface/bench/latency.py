"""Latency: how long whole detections take, side by side.

Machines are noisy, so models are compared in rounds: each runs a few times, then the next, then all
over again. A neighbour that wakes up for a minute then slows every model, not the one whose turn it
was. Each model runs in a process of its own (``slimface.bench.worker``), one of them at a time.
"""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from slimface.bench.contestant import Contestant
from slimface.bench.machine import this_machine
from slimface.core.benchmark import Benchmark
from slimface.deploy.media import read_picture
from slimface.deploy.pixels import Picture, resized
from slimface.errors import MissingError, UsageError
from slimface.loading import COMPOSED

log = logging.getLogger(__name__)

T = TypeVar("T")


def _no_bar(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    return items


def benchmark(
    models: Sequence[str | Path],
    *,
    sizes: Sequence[tuple[int, int]] = ((480, 640),),
    threads: Sequence[int] = (1,),
    rounds: int = 5,
    runs: int = 20,
    picture: Picture | None = None,
    track: Callable[..., Iterable[int]] = _no_bar,
) -> Iterator[Benchmark]:
    """Measure models on this machine.

    Args:
        models: Names of the zoo, checkpoints, exported files.
        sizes: Heights and widths of the input.
        threads: Numbers of threads.
        rounds: How many times each model gets its turn.
        runs: Detections that count each time.
        picture: What to detect faces on, resized to each size; a drawn scene if not given.
        track: ``track(items, description)`` iterates over the rounds and may draw a bar.

    Yields:
        One record for each size, model and number of threads; those of one size together, as soon
        as they are measured.

    Raises:
        UsageError: There is nothing to measure, or a number makes no sense.
        MissingError, CheckpointError: A model cannot be opened, or its runtime crashed.
    """
    check_numbers(models, sizes, threads, rounds, runs)
    machine = this_machine()
    scene = drawn_scene() if picture is None else picture
    for height, width in sizes:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place = folder / "picture.npy"
            np.save(place, resized(scene, height, width))
            contestants = [
                stack.enter_context(Contestant(str(model), count, place))
                for model in models
                for count in threads
            ]
            for _ in track(range(rounds), f"{width}x{height}"):
                for contestant in contestants:
                    contestant.run(runs)
            for contestant in contestants:
                yield contestant.finish(height, width, machine)


def drawn_scene() -> Picture:
    """Return the picture that is used where none is given: 480 x 640, faces that were drawn once.

    It is kept as a file, since drawing it takes OpenCV, and a small device has none.
    """
    return read_picture(Path(__file__).with_name("scene.jpg"))


def check_numbers(
    models: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    threads: Sequence[int],
    rounds: int,
    runs: int,
) -> None:
    """Refuse what cannot be measured before anything is.

    Raises:
        UsageError: There is nothing to measure, or a number makes no sense.
        MissingError: A model is a file that is not there.
    """
    if not models or not sizes or not threads:
        raise UsageError("There is nothing to measure.\nGive models, sizes and threads.")
    numbers = [*threads, rounds, runs, *(side for size in sizes for side in size)]
    if min(numbers) < 1:
        raise UsageError(
            f"sizes, threads, rounds and runs count from 1; one of them is {min(numbers)}.\n"
            "Correct it."
        )
    for model in models:
        path = Path(model)
        if COMPOSED.search(str(model)):
            continue
        if (path.suffix or path.parent != Path()) and not path.exists():
            raise MissingError(f"There is no model file {path}.\nCheck the path.")
