"""Milliseconds between the network's answer and the faces, beside other ways to get them.

    OMP_NUM_THREADS=1 SLIMFACE_WEIGHTS=../shared/weights python benchmarks/postprocess.py \
        --pictures ../shared/data/wider/WIDER_val/images [--model eresfd.onnx]

Pictures are resized to 640 x 480. Two floors: 0.4, as detection uses it, and 0.05, as evaluations
do, where EResFD's background (0.106) fills the suppression with 5,000 boxes. All ways get the same
sorted candidates and must keep the same boxes. One thread; the median over the pictures of the
fastest of 15 rounds each, the one that others on the machine disturbed least.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

import slimface
from slimface.core.boxes import best_first, overlaps, suppress
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Pipeline, RawFaces, Settings, logit

HEIGHT, WIDTH = 480, 640
OVERLAP, PRE_NMS, CAP = 0.3, 5000, 750


def fastest_ms(work: Callable[[], object], *, rounds: int = 15) -> float:
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def ours(boxes, logits):
    return suppress(boxes, logits, overlap=OVERLAP, cap=CAP, is_sorted=True)


def by_torchvision(boxes, logits):
    kept = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(logits), OVERLAP)
    return kept.numpy()[:CAP]


def by_opencv(boxes, logits):
    corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = 1 / (1 + np.exp(-logits))
    return np.asarray(cv2.dnn.NMSBoxes(corner_size, scores, 0.0, OVERLAP))[:CAP]


def by_plain_loop(boxes, logits):
    """One kept box against all that are left, until none is: the usual NumPy version."""
    order, kept = np.arange(len(boxes)), []
    while len(order) and len(kept) < CAP:
        best, order = order[0], order[1:]
        kept.append(best)
        near = overlaps(boxes[[best]], boxes[order])[0]
        order = order[near.astype(np.float64) <= OVERLAP]
    return np.asarray(kept)


def anchors_by_loop(grid, height, width):
    """Anchors as the published forward pass makes them for every picture."""
    anchors = []
    for level in grid.levels:
        rows, columns = level.rows_and_columns(height, width)
        for i, j in itertools.product(range(rows), range(columns)):
            for size in level.sizes:
                x, y = (j + 0.5) * level.stride / width, (i + 0.5) * level.stride / height
                anchors += [x, y, size / width, grid.height_per_width * size / height]
    return np.asarray(anchors, dtype=np.float32).reshape(-1, 4)


def candidates(pipeline: Pipeline, raw: RawFaces, floor: float):
    logits = raw.logits[0]
    index = np.flatnonzero(logits >= logit(floor))
    index = index[best_first(logits[index], limit=PRE_NMS)]
    anchors = pipeline.spec.anchors.anchors(HEIGHT, WIDTH)[index]
    return pipeline.spec.codec.decode(raw.offsets[0, index], anchors), logits[index]


def compare_suppressions(pipeline: Pipeline, raws: list[RawFaces]) -> None:
    ways = {
        "slimface": ours,
        "torchvision nms": by_torchvision,
        "cv2.dnn.NMSBoxes": by_opencv,
        "plain NumPy loop": by_plain_loop,
    }
    print(f"{'suppression alone':28}{'boxes in':>10}{'kept':>7}{'ms':>9}  same boxes")
    for floor in (0.4, 0.05):
        inputs = [candidates(pipeline, raw, floor) for raw in raws]
        expected = [ours(*one) for one in inputs]
        for name, way in ways.items():
            same = sum(
                np.array_equal(way(*one), kept) for one, kept in zip(inputs, expected, strict=True)
            )
            ms = statistics.median(fastest_ms(lambda w=way, o=one: w(*o)) for one in inputs)
            counts = [statistics.median(map(len, x)) for x in ([b for b, _ in inputs], expected)]
            print(
                f"floor {floor:<5} {name:16}{counts[0]:>10.0f}{counts[1]:>7.0f}{ms:>9.2f}"
                f"  {same} of {len(raws)}"
            )


def measure_whole(pipeline: Pipeline, pictures: list[np.ndarray]) -> None:
    print(f"\n{'whole detection, ms':28}{'resize':>10}{'network':>9}{'decode':>9}{'pre+post':>10}")
    for floor in (0.4, 0.05):
        settings = Settings(score_floor=floor, pre_nms=PRE_NMS, cap=CAP)
        timings = []
        for picture in pictures:
            runs = [pipeline.detect_timed(picture, settings)[1] for _ in range(15)]
            timings.append(min(runs, key=lambda timing: timing.total_ms))
        resize, network, decode = (
            statistics.median(getattr(timing, part) for timing in timings)
            for part in ("resize_ms", "network_ms", "decode_ms")
        )
        share = (resize + decode) / network
        print(
            f"floor {floor:<5} {pipeline.runtime:16}{resize:>10.2f}{network:>9.2f}{decode:>9.2f}"
            f"{share:>9.0%} of the network"
        )
    rebuilt = fastest_ms(lambda: anchors_by_loop(pipeline.spec.anchors, HEIGHT, WIDTH), rounds=3)
    cached = fastest_ms(lambda: pipeline.spec.anchors.anchors(HEIGHT, WIDTH))
    print(f"\nanchors: rebuilt in a loop for every picture {rebuilt:.1f} ms, kept {cached:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="eresfd")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pipeline = slimface.load(options.model, threads=1)
    files = sorted(options.pictures.rglob("*.jpg"))
    files = files[:: max(1, len(files) // options.count)][: options.count]
    pictures = [cv2.resize(read_picture(file), (WIDTH, HEIGHT)) for file in files]
    raws = [pipeline.network(pipeline.prepare([picture])) for picture in pictures]
    compare_suppressions(pipeline, raws)
    measure_whole(pipeline, pictures)


if __name__ == "__main__":
    main()
