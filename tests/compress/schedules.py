"""The smallest training there is, and how to kill it, for the tests of pruning schedules."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from slimface.data.source import DrawnScenes
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.step import Context
from slimface.train.schedule import Schedule
from slimface.train.step import Train

SOURCE = DrawnScenes(train=4, val=2, size_px=96)
TRAIN = Train(schedule=Schedule(epochs=2, batch_size=2, learning_rate=1e-3), size_px=64, holdout=0)


class KilledError(Exception):
    """What a signal does."""


def start(width: int = 4) -> Detector:
    return build(eresfd.naver(width=width), seed=0)


def context(folder: Path, **more: Any) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    return Context(folder=folder, source=SOURCE, workers=0, **more)


def dies_at(batch: int) -> Callable[..., Iterable[Any]]:
    """A progress bar that kills the work when so many batches of training were handed out."""
    seen = 0

    def track(items: Iterable[Any], description: str, total: int | None = None) -> Iterable[Any]:
        nonlocal seen
        for item in items:
            if description.startswith("epoch"):
                seen += 1
                if seen > batch:
                    raise KilledError
            yield item

    return track
