"""Seconds and memory to score the whole WIDER FACE validation split, against plain loops.

    SLIMFACE_WIDER=../shared/data/wider OMP_NUM_THREADS=1 python benchmarks/evaluator.py [--loops]

The ground truth is the official one of all 3,226 pictures; the detections are drawn around it. A
process of its own scores each number of boxes, so that memory is that of one scoring. The loops
(tests/evaluate/plain_loop.py, minutes) run only when asked for, on every 20th picture, and their
time is scaled up; the figure on these pictures must be the same to 1e-9.
"""

import argparse
import json
import os
import resource
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from slimface.core.faces import Faces
from slimface.evaluate.average_precision import match
from slimface.evaluate.bootstrap import resample
from slimface.evaluate.widerface import read_truth

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SLIMFACE_WIDER", HERE.parents[1] / "shared" / "data" / "wider"))
STRIDE = 20


def drawn_detections(truth, boxes_per_picture):
    """Noisy copies of a picture's faces, best first."""
    draws = np.random.default_rng(0)
    ends = np.cumsum(truth.counts)
    detections = []
    for end, count in zip(ends, truth.counts, strict=True):
        own = truth.boxes[end - count : end]
        sides = np.tile(own[:, 2:] - own[:, :2], 2).mean(axis=0)
        boxes = own[draws.integers(0, count, boxes_per_picture)]
        boxes = boxes + draws.normal(0, 0.15, boxes.shape) * sides
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = np.sort(draws.random(boxes_per_picture).astype(np.float32))[::-1]
        detections.append(Faces(boxes.astype(np.float32), scores))
    return detections


def measure(boxes_per_picture):
    """Score the three subsets; the best of five, processor seconds."""
    truth = read_truth(ROOT)
    detections = drawn_detections(truth, boxes_per_picture)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(5):
        start = time.process_time()
        matches = match(detections, truth)
        figures = {
            name: matches.curve(mask).average_precision for name, mask in truth.counting.items()
        }
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    for mask in truth.counting.values():
        resample(matches, mask)
    return {
        "boxes": boxes_per_picture,
        "seconds": round(min(seconds), 3),
        "peak_mb": round(peak / 1024),
        "of_which_scoring_mb": round((peak - before) / 1024),
        "bootstrap_seconds": round(time.process_time() - start, 3),
        "average_precision": figures,
    }


def measure_loops(boxes_per_picture):
    """Score every 20th picture with plain loops and with ours."""
    loop = runpy.run_path(str(HERE.parent / "tests" / "evaluate" / "plain_loop.py"))
    whole = read_truth(ROOT)
    truth = whole.restricted(whole.names[::STRIDE])
    detections = drawn_detections(truth, boxes_per_picture)
    cuts = np.cumsum(truth.counts)[:-1]
    faces = [part.tolist() for part in np.split(truth.boxes, cuts)]
    rows = [list(zip(one.boxes.tolist(), one.scores.tolist(), strict=True)) for one in detections]
    matches = match(detections, truth)
    start = time.process_time()
    worst = 0.0
    for mask in truth.counting.values():
        counting = [part.tolist() for part in np.split(mask, cuts)]
        figure = loop["average_precision"](rows, faces, counting)
        worst = max(worst, abs(figure - matches.curve(mask).average_precision))
    seconds = time.process_time() - start
    return {
        "boxes": boxes_per_picture,
        "pictures": len(truth),
        "loop_seconds_scaled_to_all": round(seconds * len(whole) / len(truth), 1),
        "largest_difference": worst,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    for boxes in (60, 300):
        command = [sys.executable, __file__, "--one", str(boxes)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if options.loops:
            row |= measure_loops(boxes)
            row["times_faster"] = round(row["loop_seconds_scaled_to_all"] / row["seconds"])
        print(json.dumps(row))


if __name__ == "__main__":
    main()
