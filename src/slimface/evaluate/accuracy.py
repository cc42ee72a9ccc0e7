"""Accuracy: score any classifier, from a module in training to a file on a phone, by one rule."""

import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np

import slimface
from slimface.core.accuracy import Accuracy, AccuracyProtocol
from slimface.core.spec import WholePicture
from slimface.data.labelled import Labelled, LabelledSet
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.media import read_picture
from slimface.errors import UsageError


def _no_bar(items: Iterable[Labelled], description: str, total: int | None = None) -> Any:
    return items


def accuracy(
    classifier: ClassPipeline,
    pictures: LabelledSet,
    *,
    command: tuple[str, ...] = (),
    progress: Callable[..., Any] = _no_bar,
) -> Accuracy:
    """Classify pictures and compare with what is known.

    Args:
        classifier: Any classifier.
        pictures: Of the classifier's classes.
        command: The command line that asked for it.
        progress: ``progress(items, description, total=...)`` may draw a bar.

    Raises:
        UsageError: There are no pictures, or they have other classes.
        DataError: A picture cannot be read.
    """
    if not len(pictures):
        raise UsageError(f"{pictures.name} holds no picture.\nName a split that does.")
    if pictures.classes != classifier.spec.classes:
        raise UsageError(
            f"{pictures.name} has {len(pictures.classes)} classes, {classifier.name} knows "
            f"{len(classifier.spec.classes)}, and they are not the same.\n"
            "Name the pictures that the classifier was trained on."
        )
    count = len(pictures.classes)
    confusion = np.zeros((count, count), dtype=np.int64)
    among_five = 0
    start = time.perf_counter()
    for one in progress(pictures.pictures, "evaluate", total=len(pictures)):
        scores = classifier.classify(read_picture(one.path)).scores
        order = np.argsort(-scores, kind="stable")
        confusion[one.label, order[0]] += 1
        among_five += one.label in order[:5]
    right = int(confusion.trace())
    low, high = wilson(right, len(pictures))
    return Accuracy(
        model=classifier.name,
        model_fingerprint=classifier.fingerprint(),
        protocol=protocol_of(pictures, classifier.spec.preprocess),
        top1=right / len(pictures),
        top5=among_five / len(pictures),
        low=low,
        high=high,
        classes=pictures.classes,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        seconds=time.perf_counter() - start,
        command=command,
        date=datetime.now(UTC),
        version=slimface.__version__,
    )


def protocol_of(pictures: LabelledSet, rule: WholePicture) -> AccuracyProtocol:
    """Return what besides the model moves the accuracy on these pictures."""
    return AccuracyProtocol(
        truth=pictures.name,
        truth_sha256=pictures.fingerprint(),
        pictures=len(pictures),
        height_px=rule.height_px,
        width_px=rule.width_px,
        fit=rule.fit if rule.fit == "stretch" else f"crop {rule.crop:g}",
    )


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share, by default that of 95 %.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
