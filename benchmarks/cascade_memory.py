"""Memory of cascade detection: a large picture full of faces, and many pictures one after another.

    python benchmarks/cascade_memory.py

Each setting runs in a process of its own, which prints how far its memory rose above what it took
to open the model. Weights: those of facenet-pytorch (SLIMFACE_WEIGHTS, or downloaded).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from slimface.bench.worker import peak_memory
from slimface.data.drawn import Drawn, draw
from slimface.deploy.pipeline import Picture


def crowd(height: int, width: int) -> Picture:
    """Tile drawn scenes: hundreds of faces of all sizes."""
    spec = Drawn(count=4, height_px=300, width_px=400, fewest=6, most=9, seed=5)
    scenes = [draw(spec, i)[0] for i in range(spec.count)]
    rows = [
        np.concatenate([scenes[(y + x) % len(scenes)] for x in range(-(-width // 400))], axis=1)
        for y in range(-(-height // 300))
    ]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


def held() -> int:
    """Bytes that this process holds now, swapped out or not; files it has mapped do not count."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return (
        sum(int(status.partition(f"{name}:")[2].split()[0]) for name in ("RssAnon", "VmSwap"))
        * 1024
    )


def large(model: str, proposals: int, height: int, width: int) -> dict[str, float]:
    """Detect on one large picture."""
    from slimface.deploy.cascade import Cascade
    from slimface.loading import load

    cascade = load(model, threads=1)
    assert isinstance(cascade, Cascade)
    cascade = cascade.looking_for(proposals=proposals)
    picture = crowd(height, width)
    cascade.detect(crowd(120, 160))
    before, start = peak_memory(), time.process_time()
    faces = cascade.detect(picture)
    return {
        "proposals": proposals,
        "faces": len(faces),
        "rose_mb": round((peak_memory() - before) / 1e6, 1),
        "processor_s": round(time.process_time() - start, 1),
    }


def many(model: str, pictures: int) -> dict[str, float]:
    """Detect on pictures of many sizes; what stays after the first forty must stay the same."""
    from slimface.loading import load

    cascade = load(model, threads=1)
    whole = crowd(300, 400)
    marks = []
    for i in range(pictures):
        cascade.detect(np.ascontiguousarray(whole[: 120 + i * 7 % 120, : 160 + i * 13 % 160]))
        if i + 1 in (40, pictures):
            marks.append(held())
    return {"pictures": pictures, "grew_mb": round((marks[-1] - marks[0]) / 1e6, 2)}


def main() -> None:
    """Run every setting in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--proposals", type=int, nargs="*", default=[1000, 20000])
    parser.add_argument("--model", default="mtcnn")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        what, number = asked.run[0], int(asked.run[1])
        found = (
            many(asked.model, number)
            if what == "many"
            else large(asked.model, number, asked.height, asked.width)
        )
        print(json.dumps(found))
        return
    size = ["--height", str(asked.height), "--width", str(asked.width), "--model", asked.model]
    runs = [("many", asked.pictures), *(("large", count) for count in asked.proposals)]
    for what, number in runs:
        command = [sys.executable, __file__, *size, "--run", what, str(number)]
        print(what, subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
