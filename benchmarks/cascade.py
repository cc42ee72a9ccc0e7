r"""Processor seconds of the cascade on real pictures, against the published rules in plain loops.

    SLIMFACE_WIDER=../shared/data/wider SLIMFACE_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 \
        python benchmarks/cascade.py [--pictures 10]

The loops (tests/deploy/plain_cascade.py) go over scales, boxes and crops one by one, with the same
weights. Faces of 20 pixels and more are looked for, with one thread. Both must find the same boxes.
"""

import argparse
import os
import runpy
import time
from pathlib import Path

import numpy as np
import torch

import slimface
from slimface.deploy.media import read_picture

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=10, help="how many, spread evenly")
    count = parser.parse_args().pictures
    wider = Path(os.environ.get("SLIMFACE_WIDER", SHARED / "data" / "wider"))
    weights = Path(os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights")))
    torch.set_num_threads(1)
    plain = runpy.run_path(str(HERE.parent / "tests" / "deploy" / "plain_cascade.py"))
    nets = plain["published_nets"](weights / "mtcnn")
    cascade = slimface.load("mtcnn", threads=1)
    paths = sorted((wider / "WIDER_val" / "images").glob("*/*.jpg"))
    paths = paths[:: max(1, len(paths) // count)][:count]
    cascade.detect(read_picture(paths[0]))
    ours_s, plain_s, faces, furthest = 0.0, 0.0, 0, 0.0
    for path in paths:
        picture = read_picture(path)
        start = time.process_time()
        found = cascade.detect(picture)
        middle = time.process_time()
        rows, points = plain["detect"](picture, nets)
        ours, theirs = middle - start, time.process_time() - middle
        ours_s, plain_s, faces = ours_s + ours, plain_s + theirs, faces + len(found)
        same = len(found) == len(rows)
        if same and len(rows):
            apart = max(
                np.abs(found.boxes - rows[:, :4]).max(), np.abs(found.landmarks - points).max()
            )
            furthest = max(furthest, apart)
        verdict = "same" if same else f"DIFFERENT: {len(found)} and {len(rows)}"
        print(
            f"{path.stem[:40]:40} {ours:6.2f} s {theirs:6.2f} s  {theirs / ours:4.1f}x  {verdict}"
        )
    print(
        f"{len(paths)} pictures, {faces} faces: {ours_s:.2f} s, plain loops {plain_s:.2f} s: "
        f"{plain_s / ours_s:.1f} times as fast; boxes and landmarks at most {furthest:.4f} px apart"
    )


if __name__ == "__main__":
    main()
