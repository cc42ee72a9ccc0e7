"""Score any predictor, from a module in training to a file on a phone, by the same rule."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimface.core.faces import Faces
from slimface.core.record import (
    REFERENCE_PIXELS,
    Evaluation,
    External,
    Fitted,
    InputRule,
    Longest,
    Multiscale,
    Original,
)
from slimface.data.pictures import Annotated, PictureSet
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Picture, Predictor, Settings
from slimface.errors import UsageError
from slimface.evaluate.bootstrap import RESAMPLES
from slimface.evaluate.detection_log import Detected, DetectionLog
from slimface.evaluate.landmarks import landmark_error
from slimface.evaluate.multiscale import detect_multiscale
from slimface.evaluate.predictions import write_predictions
from slimface.evaluate.scoring import protocol_of, score
from slimface.evaluate.truth import Truth

logger = logging.getLogger(__name__)

DEFAULT_RULE = Original(max_pixels=REFERENCE_PIXELS)

_EXTERNAL = (
    "The input rule 'external' describes detections of another program.\n"
    "Choose original, longest or multiscale."
)


def evaluate(
    predictor: Predictor,
    pictures: PictureSet,
    truth: Truth,
    *,
    rule: InputRule = DEFAULT_RULE,
    score_floor: float = 0.05,
    nms_overlap: float = 0.3,
    pre_nms: int = 5000,
    cap: int = 750,
    folder: Path | None = None,
    save_predictions: Path | None = None,
    fingerprint: str | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
    workers: int = 1,
    resamples: int = RESAMPLES,
    landmarks: bool = False,
    command: Sequence[str] = (),
) -> Evaluation:
    """Find faces on pictures and score them.

    Args:
        predictor: What finds faces.
        pictures: Where; each must be in ``truth``.
        truth: Reduced to these pictures.
        rule: The size at which ``predictor`` sees each picture.
        score_floor: Detections below are dropped.
        nms_overlap: Of two detections that overlap more, the lower scored goes.
        pre_nms: At most this many boxes enter the suppression.
        cap: At most this many detections a picture.
        folder: Keep detections here as they come. A second call with the same model and protocol
            detects only what is missing.
        save_predictions: Write the detections here, in the layout of ``read_predictions``.
        fingerprint: What tells this model from others; None asks its ``fingerprint()``.
        progress: Called as ``progress(items, description, total=n)``; hands the items on.
        workers: Threads that detect; only for predictors that may be called from several.
        resamples: Draws of the bootstrap; 0 for no intervals.
        landmarks: Measure the landmarks of found faces, too, against those of ``pictures``.
        command: The command line, for the record.

    Raises:
        DataError: There is no picture, a picture is not in the truth, or cannot be read.
        ProtocolError: ``folder`` belongs to another model or protocol.
        UsageError: The rule does not describe an input, the model cannot be told from others, or
            it has no landmarks to measure.
    """
    if isinstance(rule, External):
        raise UsageError(_EXTERNAL)
    if landmarks:
        _check_landmarks(predictor, rule)
    truth = truth.restricted(one.name for one in pictures)
    settings = Settings(score_floor=score_floor, nms_overlap=nms_overlap, pre_nms=pre_nms, cap=cap)
    protocol = protocol_of(truth, rule, settings)
    model_fingerprint = fingerprint or fingerprint_of(predictor)
    found: dict[str, Detected] = {}
    with ExitStack() as stack:
        log = None
        if folder is not None:
            log = stack.enter_context(DetectionLog(folder, model_fingerprint, protocol))
            found |= log.detected
            if found:
                logger.info("%s: %d of %d pictures are done", log.path, len(found), len(pictures))
        remaining = [one for one in pictures if one.name not in found]
        results = _detect_all(predictor, remaining, settings, rule, workers)
        shown = progress(results, "evaluate", total=len(remaining)) if progress else results
        for name, detected in shown:
            if log is not None:
                log.add(name, detected)
            found[name] = detected
    detections = [found[name].faces for name in truth.names]
    if save_predictions is not None:
        write_predictions(save_predictions, truth.names, detections)
    evaluation = score(
        detections,
        truth,
        protocol,
        model=getattr(predictor, "name", predictor.spec.name),
        model_fingerprint=model_fingerprint,
        seconds=sum(found[name].seconds for name in truth.names),
        resamples=resamples,
        command=command,
    )
    if not landmarks:
        return evaluation
    annotated = {one.name: one.faces for one in pictures}
    error = landmark_error(detections, [annotated[name] for name in truth.names])
    return evaluation.model_copy(update={"landmarks": error})


def _check_landmarks(predictor: Predictor, rule: InputRule) -> None:
    if not predictor.spec.landmarks:
        raise UsageError(
            f"{predictor.spec.name} finds boxes without landmarks.\n"
            "Leave --landmarks out, or choose a detector that finds them."
        )
    if isinstance(rule, Multiscale):
        raise UsageError(
            "Voting over several sizes keeps boxes, not landmarks.\n"
            "Measure landmarks with --input original or longest:N."
        )


def detect(predictor: Predictor, picture: Picture, settings: Settings, rule: InputRule) -> Faces:
    """Detect on one picture at the size, or the sizes, that ``rule`` asks for."""
    match rule:
        case Multiscale():
            return detect_multiscale(predictor, picture, settings, rule)
        case Longest():
            sized = replace(settings, scale=None, longest_px=rule.longest_px)
        case Fitted():
            height, width = picture.shape[:2]
            fit = min(rule.height_px / height, rule.width_px / width, 1.0)
            sized = replace(settings, scale=fit, longest_px=None)
        case Original():
            pixels = picture.shape[0] * picture.shape[1]
            limit = rule.max_pixels or pixels
            sized = replace(settings, scale=min(1.0, (limit / pixels) ** 0.5), longest_px=None)
        case External():
            raise UsageError(_EXTERNAL)
    return predictor.detect(picture, sized)


def fingerprint_of(predictor: Predictor) -> str:
    """Ask a predictor what tells it from others.

    Raises:
        UsageError: It does not say.
    """
    ask = getattr(predictor, "fingerprint", None)
    if ask is None:
        raise UsageError(
            f"{type(predictor).__name__} has no fingerprint(), so its results could be taken for "
            "another model's.\nGive evaluate(fingerprint=...) something that is unique to it."
        )
    return str(ask())


def _detect_all(
    predictor: Predictor,
    pictures: Sequence[Annotated],
    settings: Settings,
    rule: InputRule,
    workers: int,
) -> Iterator[tuple[str, Detected]]:
    def task(one: Annotated) -> tuple[str, Detected]:
        start = time.perf_counter()
        faces = detect(predictor, read_picture(one.path), settings, rule)
        return one.name, Detected(faces, time.perf_counter() - start)

    if workers == 1:
        yield from map(task, pictures)
        return
    # A short queue: results leave in order, and little is lost when the caller stops.
    running: deque[Future[tuple[str, Detected]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for one in pictures:
                running.append(pool.submit(task, one))
                if len(running) >= 2 * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
