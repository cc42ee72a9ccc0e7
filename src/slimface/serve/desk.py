"""Desk: the workers that look at pictures, and the line in front of them."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from slimface.core.faces import Faces
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Pipeline, Settings, Timing
from slimface.serve.limits import Limits, refusal

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found on one picture."""

    faces: Faces
    height: int
    width: int
    timing: Timing


class Desk:
    """Detects faces on pictures that come from many clients at once.

    Each worker has a pipeline of its own, since not every runtime may be called from several
    threads. Requests beyond the workers wait in a line of limited length, so memory is bounded
    whatever the clients do.
    """

    def __init__(self, open_pipeline: Callable[[], Pipeline], limits: Limits, workers: int) -> None:
        self.limits = limits
        self.workers = workers
        self.pipeline = open_pipeline()
        """Of the first worker; also says what the model is."""

        self._own = local()
        self._pipelines = [self.pipeline, *(open_pipeline() for _ in range(workers - 1))]
        self._pool = ThreadPoolExecutor(
            workers, thread_name_prefix="detect", initializer=self._take_pipeline
        )
        self._inside = 0
        self.meters = Meters()

    def _take_pipeline(self) -> None:
        self._own.pipeline = self._pipelines.pop()

    async def look_at(self, data: bytes, settings: Settings) -> Answer:
        """Return the faces of an encoded picture.

        Raises:
            HTTPException: 503, the line is full, or the answer took too long.
            DataError: The bytes are no whole picture, or too many pixels.
        """
        if self._inside >= self.workers + self.limits.waiting:
            raise refusal(
                503,
                f"{self.limits.waiting} requests are waiting already.",
                "Ask again in a second, or start the server with more --workers.",
                **{"Retry-After": "1"},
            )
        self._enter(+1)
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._detect, data, settings)
        # A thread cannot be stopped: a picture that takes too long keeps its place until it is
        # done, or the line behind it would grow without bound.
        work.add_done_callback(lambda _: self._enter(-1))
        try:
            return await asyncio.wait_for(asyncio.shield(work), self.limits.seconds)
        except TimeoutError:
            work.add_done_callback(lambda done: done.exception())
            raise refusal(
                503,
                f"the picture was not done within {self.limits.seconds:g} seconds.",
                "Send it smaller (longest=640), or ask again when fewer others do.",
                **{"Retry-After": "5"},
            ) from None

    def _enter(self, step: int) -> None:
        self._inside += step
        self.meters.inside.set(self._inside)

    def _detect(self, data: bytes, settings: Settings) -> Answer:
        start = time.perf_counter()
        picture = read_picture(data, max_pixels=self.limits.pixels)
        read_ms = 1e3 * (time.perf_counter() - start)
        faces, timing = self._own.pipeline.detect_timed(picture, settings)
        height, width = picture.shape[:2]
        self.meters.pictures.inc()
        self.meters.faces.inc(len(faces))
        self.meters.seconds.observe(time.perf_counter() - start)
        timing = Timing(read_ms, timing.resize_ms, timing.network_ms, timing.decode_ms)
        return Answer(faces, height, width, timing)

    def close(self) -> None:
        """Let the pictures in work end; those in line are given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Meters:
    """What ``/metrics`` shows, in the text format of Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry}
        self.pictures = Counter("slimface_pictures", "Pictures looked at", **common)
        self.faces = Counter("slimface_faces", "Faces found", **common)
        self.requests = Counter(
            "slimface_requests", "Requests by path and status", ("path", "status"), **common
        )
        self.inside = Gauge("slimface_inside", "Pictures in work or waiting", **common)
        self.seconds = Histogram(
            "slimface_seconds", "Decoding and detection of a picture", buckets=_SECONDS, **common
        )
