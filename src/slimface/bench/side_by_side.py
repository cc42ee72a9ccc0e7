"""Side by side: the networks of several files, timed in turns within this process.

For the question that a compressing step asks again and again: how much faster is this file than
that one? ``slimface.bench.latency`` answers it for whole detections, with a process for each.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slimface.deploy.classify import ClassPipeline
from slimface.deploy.media import Picture
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.preprocess import Normaliser
from slimface.deploy.runtimes import open_any_file
from slimface.loading import load_any

Floats = npt.NDArray[np.float64]

WARM_UP = 2
"""Runs at the start of each turn that do not count: the caches belong to the file before."""

_SETTLED = 0.005
"""The leasts of all files have settled when a third of the rounds lowers none by this share."""

_PATIENCE = 4
"""So many times the rounds are made at most until they have."""


def clock(threads: int) -> Callable[[], float]:
    """Return what tells the seconds: of the processor for one thread, else of the wall.

    What other processes do to the machine is in the time of the wall, and hardly in that of the
    processor; but the latter adds up what threads do at once.
    """
    return time.process_time if threads == 1 else time.perf_counter


def network_ms(
    files: Sequence[str | Path],
    *,
    threads: int = 1,
    height: int = 480,
    width: int = 640,
    rounds: int = 12,
    runs: int = 6,
) -> Floats:
    """Return the milliseconds that the network of each exported file takes for one picture.

    The least of all its runs, in turns with the other files.

    Args:
        files: Exported files, of any runtime.
        threads: To compute with.
        height: Of the picture; classifiers see it at their own size.
        width: Of the picture.
        rounds: Turns of each file; more while its least still falls.
        runs: Runs of each turn that count.

    Raises:
        MissingError, CheckpointError: A file cannot be opened.
    """
    contestants = []
    for file in files:
        opened = open_any_file(file, threads=threads)
        contestants.append(partial(opened.network, _images(opened, height, width)))
    return _in_turns(contestants, clock(threads), rounds, runs)


def detection_ms(
    files: Sequence[str | Path], picture: Picture, *, rounds: int = 9, runs: int = 5
) -> list[float]:
    """Return the milliseconds of the processor that each exported file takes for one picture.

    From pixels to faces or classes, with one thread: for cascades and classifiers, too. The files
    take turns, as for ``network_ms``.

    Args:
        files: Exported files, or folders of cascades, of any runtime.
        picture: What they look at.
        rounds: Turns of each file.
        runs: Runs of each turn that count.

    Raises:
        MissingError, CheckpointError: A file cannot be opened.
    """
    calls = []
    for file in files:
        opened = load_any(file, threads=1)
        look = opened.classify if isinstance(opened, ClassPipeline) else opened.detect
        calls.append(partial(look, picture))
    found: list[float] = _in_turns(calls, clock(1), rounds, runs).tolist()
    return found


def _in_turns(
    calls: Sequence[Callable[[], object]], now: Callable[[], float], rounds: int, runs: int
) -> Floats:
    """Return the milliseconds of each call: the least of all its turns.

    Neighbours that take the cache and the memory slow large and small networks in other
    proportions, so a median would say as much of them as of the files. The calls take turns, there
    and back, so that each one has its share of the quiet moments; on a busy machine they go on
    until no call's least falls any more.
    """
    least = np.full(len(calls), np.inf)
    block = -(-rounds // 3)
    for first in range(0, _PATIENCE * rounds, block):
        before = least.copy()
        for number in range(first, first + block):
            order = range(len(calls))
            for i in order if number % 2 == 0 else reversed(order):
                least[i] = min(least[i], _turn(calls[i], now, runs))
        if first + block >= rounds and (least >= (1 - _SETTLED) * before).all():
            break
    return least * 1e3


def _turn(call: Callable[[], object], now: Callable[[], float], runs: int) -> float:
    best = np.inf
    for run in range(WARM_UP + runs):
        start = now()
        call()
        if run >= WARM_UP:
            best = min(best, now() - start)
    return float(best)


def _images(opened: Pipeline | ClassPipeline, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return noise as the pipeline would feed it to the network."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if isinstance(opened, ClassPipeline):
        return opened.prepare([noise])
    return Normaliser(opened.spec.preprocess)([noise], height, width)
