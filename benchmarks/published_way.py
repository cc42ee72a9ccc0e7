"""EResFD as slimface ships it, beside the way it was published: same boxes, how much faster?

    OMP_NUM_THREADS=1 SLIMFACE_WEIGHTS=../shared/weights python benchmarks/published_way.py \
        --pictures ../shared/data/wider/WIDER_val/images

The published way (clovaai/EResFD and what was built on it): torch in eager mode, anchors made
again for each picture in a Python loop, every anchor decoded, a floor of 0.05 that nothing falls
below, and suppression of the best 5,000 boxes one step of torch operations at a time. Here from
that description, without their code; one thread, in turns, on one picture of 640x480.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from slimface.bench.latency import drawn_scene
from slimface.bench.machine import load_average, this_machine
from slimface.core.faces import Faces
from slimface.core.spec import DetectorSpec
from slimface.deploy.pipeline import Picture, Settings
from slimface.deploy.runtimes import open_exported
from slimface.export.onnx import Onnx
from slimface.export.parity import parity
from slimface.export.pictures import read_pictures, sample_pictures
from slimface.loading import load
from slimface.model import zoo
from slimface.model.detector import Detector

SCORE = 0.4
"""What the published demonstration shows."""


class PublishedWay:
    """A Predictor that works as the published code does."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval()
        self.spec: DetectorSpec = detector.spec

    @torch.no_grad()
    def detect(self, picture: Picture, settings: Settings = Settings()) -> Faces:  # noqa: B008
        height, width = picture.shape[:2]
        image = picture.astype(np.float32) - np.array(self.spec.preprocess.mean, dtype=np.float32)
        raw = self.detector(torch.from_numpy(image.transpose(2, 0, 1)).unsqueeze(0).contiguous())
        anchors = self._anchors(height, width)
        scores = torch.stack([torch.zeros_like(raw.logits), raw.logits], dim=-1).softmax(-1)[
            0, :, 1
        ]
        boxes = self._decode(raw.offsets[0], anchors)
        mask = scores > 0.05
        boxes, scores = boxes[mask], scores[mask]
        kept = _suppress(boxes, scores, overlap=0.3, best=5000)[:750]
        kept = kept[
            scores[kept] >= (SCORE if settings.score_floor is None else settings.score_floor)
        ]
        pixels = boxes[kept] * torch.tensor([width, height, width, height])
        return Faces(pixels.numpy(), scores[kept].numpy())

    def _anchors(self, height: int, width: int) -> Tensor:
        values: list[float] = []
        for level in self.spec.anchors.levels:
            rows, columns = level.rows_and_columns(height, width)
            for i in range(rows):
                for j in range(columns):
                    x, y = (j + 0.5) * level.stride / width, (i + 0.5) * level.stride / height
                    side = level.sizes[0]
                    high = side * self.spec.anchors.height_per_width
                    values += [x, y, side / width, high / height]
        return torch.tensor(values).view(-1, 4)

    def _decode(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        boxes = torch.cat(
            (
                anchors[:, :2] + offsets[:, :2] * 0.1 * anchors[:, 2:],
                anchors[:, 2:] * torch.exp(offsets[:, 2:] * 0.2),
            ),
            1,
        )
        boxes[:, :2] -= boxes[:, 2:] / 2
        boxes[:, 2:] += boxes[:, :2]
        return boxes


def _suppress(boxes: Tensor, scores: Tensor, *, overlap: float, best: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    order = scores.sort(0, descending=True)[1][:best]
    kept: list[int] = []
    while order.numel():
        first, order = order[0], order[1:]
        kept.append(int(first))
        width = (x2[order].clamp(max=x2[first]) - x1[order].clamp(min=x1[first])).clamp(min=0)
        height = (y2[order].clamp(max=y2[first]) - y1[order].clamp(min=y1[first])).clamp(min=0)
        shared = width * height
        order = order[shared / (area[order] + area[first] - shared) <= overlap]
    return torch.tensor(kept, dtype=torch.long)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, help="compare the boxes on 20 of these")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = zoo.load("eresfd")
    published = PublishedWay(detector)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "eresfd.onnx"
        Onnx().write(detector, path)
        ours = open_exported(path, threads=1)
        seen = read_pictures(options.pictures, limit=20) if options.pictures else sample_pictures()
        report = parity(published, ours, seen, score=SCORE, names=("the published way", "slimface"))
        print(report.explain())
        scene = drawn_scene()
        in_torch = load("eresfd", threads=1)
        ways: dict[str, Callable[[], object]] = {
            "published way (torch eager)": lambda: published.detect(scene),
            "slimface, torch": lambda: in_torch.detect(scene),
            "slimface, onnxruntime": lambda: ours.detect(scene),
        }
        times: dict[str, list[list[float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                times[name].append(_times(way, options.runs))
    machine = this_machine()
    print(f"{machine.processor}, 1 thread, load average {load_average()} of {machine.cores} cores")
    slowest = np.median(times["published way (torch eager)"])
    for name, rounds in times.items():
        middle, best = np.median(rounds), np.median(rounds, axis=1).min()
        low, high = np.percentile(rounds, (10, 90))
        print(
            f"{name:28} median {middle:7.2f} ms  (p10 {low:.2f}, p90 {high:.2f}, best round "
            f"{best:.2f})  {slowest / middle:5.1f} x"
        )


def _times(way: Callable[[], object], runs: int) -> list[float]:
    way()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        way()
        times.append((time.perf_counter() - start) * 1e3)
    return times


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
