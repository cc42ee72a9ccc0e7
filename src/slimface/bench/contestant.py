"""Contestant: one model in a process of its own, which tells how long it takes and what it finds.

The other side of ``slimface.bench.worker``. A runtime that crashes ends that process, never this
one.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

import slimface
from slimface import errors
from slimface.bench.machine import load_average
from slimface.core.benchmark import Benchmark, Machine, Spread
from slimface.core.faces import Faces
from slimface.core.spec import DetectorSpec, read_spec
from slimface.deploy.pipeline import Picture, Settings
from slimface.errors import CheckpointError, UsageError
from slimface.files import bytes_of

WARM_UP = 2
"""Runs at the start of each round that do not count: the caches belong to the model before."""

_TAIL = 1000
"""Characters of a dead process's last words that are shown."""


@dataclass
class Contestant:
    """One model with one number of threads: a Predictor, while it is entered.

    Raises:
        SlimfaceError: What opening the model raises in its process, when it is entered.
        CheckpointError: The process died.
    """

    model: str
    threads: int
    picture: Path
    """A picture as ``numpy.save`` writes it: what the runs detect on."""

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
        self._spec = read_spec(self._ready.pop("spec"), where=self.model)
        self.name: str = self._ready.pop("name")
        self.precision: str = self._ready.pop("precision")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def run(self, runs: int) -> None:
        """Take a turn."""
        times = self._ask({"repeat": WARM_UP + runs})["milliseconds"]
        self.rounds.append(np.asarray(times[WARM_UP:]))

    @property
    def runtime(self) -> str:
        """What runs the model."""
        return str(self._ready["runtime"])

    @property
    def is_detector(self) -> bool:
        """Whether there are faces to be found."""
        return isinstance(self._spec, DetectorSpec)

    @property
    def spec(self) -> DetectorSpec:
        """How the model is fed and read.

        Raises:
            UsageError: It is a classifier.
        """
        if not isinstance(self._spec, DetectorSpec):
            raise UsageError(
                f"{self.model} is a classifier, which finds no faces.\nMeasure its time alone."
            )
        return self._spec

    def fingerprint(self) -> str:
        """As ``Pipeline.fingerprint``."""
        return str(self._ready["model_fingerprint"])

    def detect(self, picture: Picture, settings: Settings = Settings()) -> Faces:  # noqa: B008
        """As ``Pipeline.detect``."""
        with tempfile.NamedTemporaryFile(suffix=".npy", dir=self.picture.parent) as file:
            np.save(file, picture)
            file.flush()
            found = self._ask({"detect": file.name, "settings": asdict(settings)})["faces"]
        count = len(found["scores"])
        points = found["landmarks"]
        return Faces(
            np.asarray(found["boxes"], np.float32).reshape(count, 4),
            np.asarray(found["scores"], np.float32),
            None if points is None else np.asarray(points, np.float32).reshape(count, -1, 2),
        )

    def finish(self, height: int, width: int, machine: Machine) -> Benchmark:
        """End the process and return what is known about the model.

        Args:
            height: Of the picture.
            width: Of the picture.
            machine: Where this is.
        """
        last = self._ask({"finish": True})
        path = Path(self.model)
        parts = [_spread([times[:, part] for times in self.rounds]) for part in range(3)]
        return Benchmark(
            **self._ready,
            model=path.name if path.exists() else self.name,
            height=height,
            width=width,
            threads=self.threads,
            total=_spread([times.sum(axis=1) for times in self.rounds]),
            preprocess=parts[0],
            network=parts[1],
            postprocess=parts[2],
            rounds=len(self.rounds),
            runs=sum(len(times) for times in self.rounds),
            **last,
            file_bytes=size_of(path) if path.exists() else None,
            load_average=load_average(),
            machine=machine,
            command=tuple(sys.argv),
            date=datetime.now(UTC),
            version=slimface.__version__,
        )

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


def size_of(path: Path) -> int:
    """Return how many bytes a model takes: its file, and the weights that lie beside it."""
    weights = path.with_suffix(".bin")
    beside = (
        weights.stat().st_size if path.suffix in (".xml", ".param") and weights.is_file() else 0
    )
    return bytes_of(path) + beside


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
