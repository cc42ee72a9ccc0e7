"""From the detections on a data set to an Evaluation: figures, intervals, protocol."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

import slimface
from slimface.core.faces import Faces
from slimface.core.record import Evaluation, InputRule, PrecisionRecall, Protocol, SubsetResult
from slimface.deploy.pipeline import Settings
from slimface.errors import DataError
from slimface.evaluate.average_precision import EVALUATOR, HEIGHTS_PX, Curve, Matches, match
from slimface.evaluate.bootstrap import RESAMPLES, interval, resample
from slimface.evaluate.truth import Mask, Truth


def score(
    detections: Sequence[Faces],
    truth: Truth,
    protocol: Protocol,
    *,
    model: str,
    model_fingerprint: str,
    seconds: float | None = None,
    resamples: int = RESAMPLES,
    command: Sequence[str] = (),
) -> Evaluation:
    """Score detections that are there already, of each picture of ``truth`` in its order."""
    if not len(truth):
        raise DataError("There is no picture to evaluate.\nChoose a split that has pictures.")
    matches = match(detections, truth)
    return Evaluation(
        model=model,
        model_fingerprint=model_fingerprint,
        protocol=protocol,
        subsets=tuple(
            _subset(name, matches, counting, resamples) for name, counting in truth.counting.items()
        ),
        by_height=_by_height(matches),
        detections=sum(len(faces) for faces in detections),
        seconds=seconds,
        command=tuple(command),
        date=datetime.now(UTC),
        version=slimface.__version__,
    )


def _subset(name: str, matches: Matches, counting: Mask, resamples: int) -> SubsetResult:
    curve = matches.curve(counting)
    result = _result(name, curve)
    if not curve.faces:
        return result
    # Thresholds at which nothing changes would draw the same point again.
    moves = np.diff(curve.found + curve.kept, prepend=0) > 0
    drawn = resample(matches, counting, resamples=resamples)
    low, high = interval(drawn)
    return SubsetResult(
        name=name,
        average_precision=result.average_precision,
        faces=curve.faces,
        low=_figure(low),
        high=_figure(high),
        # A draw without any face has no figure, but pairs need every draw in its place.
        resampled=tuple(np.round(np.nan_to_num(drawn), 5).tolist()),
        curve=PrecisionRecall(
            recall=tuple(np.round(curve.recall[moves], 4).tolist()),
            precision=tuple(np.round(curve.precision[moves], 4).tolist()),
        ),
    )


def _by_height(matches: Matches) -> tuple[SubsetResult, ...]:
    truth = matches.truth
    heights = truth.boxes[:, 3] - truth.boxes[:, 1]
    counts_somewhere = np.logical_or.reduce(list(truth.counting.values()))
    results = []
    for low, high in pairwise(HEIGHTS_PX):
        counting = counts_somewhere & (heights >= low) & (heights < high)
        name = f"{low:g}-{high:g} px" if np.isfinite(high) else f"{low:g} px and more"
        results.append(_result(name, matches.curve(counting, heights_px=(low, high))))
    return tuple(results)


def _result(name: str, curve: Curve) -> SubsetResult:
    figure = _figure(curve.average_precision)
    return SubsetResult(name=name, average_precision=figure, faces=curve.faces)


def _figure(value: float) -> float | None:
    """A fraction as records hold it: sums may pass 1 by a rounding, and NaN is no figure."""
    return None if np.isnan(value) else min(value, 1.0)


def protocol_of(truth: Truth, rule: InputRule, settings: Settings) -> Protocol:
    """Return the protocol of scoring against ``truth``.

    Args:
        truth: Reduced to the pictures that are scored.
        rule: From which input the detections come.
        settings: Floor, suppression and caps; None in a field: another program chose it.
    """
    return Protocol(
        evaluator=EVALUATOR,
        truth=truth.name,
        truth_sha256=truth.sha256,
        pictures=len(truth),
        pictures_in_truth=truth.pictures_in_truth,
        input=rule,
        score_floor=settings.score_floor,
        nms_overlap=settings.nms_overlap,
        pre_nms=settings.pre_nms,
        cap=settings.cap,
    )
