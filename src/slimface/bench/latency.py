"""Latency: how long whole detections take, side by side.

Machines are noisy, so models are compared in rounds: each runs a few times, then the next, then all
over again. A neighbour that wakes up for a minute then slows every model, not the one whose turn it
was. Each model runs in a process of its own (``slimface.bench.worker``), one of them at a time.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import cv2
import numpy as np

import slimface
from slimface import errors
from slimface.bench.machine import load_average, this_machine
from slimface.core.benchmark import Benchmark, Spread
from slimface.data.drawn import Drawn, draw
from slimface.deploy.pipeline import Picture
from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.files import bytes_of
from slimface.loading import COMPOSED

log = logging.getLogger(__name__)

T = TypeVar("T")

WARM_UP = 2
"""Runs at the start of each round that do not count: the caches belong to the model before."""

_TAIL = 1000
"""Characters of a dead process's last words that are shown."""


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
    _check(models, sizes, threads, rounds, runs)
    machine = this_machine()
    scene = drawn_scene() if picture is None else picture
    for height, width in sizes:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place = folder / "picture.npy"
            np.save(place, cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA))
            contestants = [
                stack.enter_context(_Contestant(str(model), count, place))
                for model in models
                for count in threads
            ]
            for _ in track(range(rounds), f"{width}x{height}"):
                for contestant in contestants:
                    contestant.run(runs)
            for contestant in contestants:
                yield Benchmark(
                    **contestant.finish(),
                    height=height,
                    width=width,
                    load_average=load_average(),
                    machine=machine,
                    command=tuple(sys.argv),
                    date=datetime.now(UTC),
                    version=slimface.__version__,
                )


def drawn_scene() -> Picture:
    """Return the picture that is used where none is given: drawn, so the same everywhere."""
    return draw(Drawn(count=1, height_px=480, width_px=640, portrait_share=0), 0)[0]


@dataclass
class _Contestant:
    """One model with one number of threads, in its process."""

    model: str
    threads: int
    picture: Path
    rounds: list["np.ndarray[Any, Any]"] = field(default_factory=list)

    def __enter__(self) -> Self:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
        }
        self._words: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "slimface.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=environment,
            text=True,
        )
        try:
            order = {"model": self.model, "threads": self.threads, "picture": str(self.picture)}
            self._ready = self._ask(order)["ready"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def run(self, runs: int) -> None:
        """Take a turn."""
        times = self._ask({"repeat": WARM_UP + runs})["milliseconds"]
        self.rounds.append(np.asarray(times[WARM_UP:]))

    def finish(self) -> dict[str, Any]:
        """End the process and return what is known about the model."""
        last = self._ask({"finish": True})
        path = Path(self.model)
        ready = dict(self._ready)
        name = ready.pop("name")
        parts = [_spread([times[:, part] for times in self.rounds]) for part in range(3)]
        return {
            **ready,
            "model": path.name if path.exists() else name,
            "threads": self.threads,
            "total": _spread([times.sum(axis=1) for times in self.rounds]),
            "preprocess": parts[0],
            "network": parts[1],
            "postprocess": parts[2],
            "rounds": len(self.rounds),
            "runs": sum(len(times) for times in self.rounds),
            **last,
            "file_bytes": bytes_of(path) if path.exists() else None,
        }

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer

    def _death(self) -> CheckpointError:
        code = self._process.wait()
        self._words.seek(0)
        words = self._words.read().decode(errors="replace").strip()[-_TAIL:]
        return CheckpointError(
            f"{self.model}: the process that ran it with {self.threads} threads ended with code "
            f"{code}.\n{words or 'It left no message.'}\n"
            "Measure the other models without it, or try fewer threads or a smaller size."
        )


def _spread(rounds: list["np.ndarray[Any, Any]"]) -> Spread:
    """Summarise the milliseconds of each round's runs."""
    times = np.concatenate(rounds)
    low, middle, high = np.percentile(times, (10, 50, 90))
    return Spread(
        median_ms=round(float(middle), 4),
        p10_ms=round(float(low), 4),
        p90_ms=round(float(high), 4),
        least_ms=round(float(times.min()), 4),
        best_round_ms=round(min(float(np.median(one)) for one in rounds), 4),
    )


def _check(
    models: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    threads: Sequence[int],
    rounds: int,
    runs: int,
) -> None:
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
