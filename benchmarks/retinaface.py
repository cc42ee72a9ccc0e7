"""RetinaFace-MobileNet0.25 on WIDER FACE val: slimface beside a plain rendering of its rules.

    OMP_NUM_THREADS=1 SLIMFACE_WEIGHTS=../shared/weights python benchmarks/retinaface.py \
        --data ../shared/data/wider

The plain one (tests/deploy/plain_retinaface.py) makes anchors in a loop, decodes, and suppresses
with inclusive corners, from the published tensors. It is scored as it is, and with corners cut to
whole numbers, as the published test script writes them.
"""

import argparse
import os
import runpy
from pathlib import Path

import numpy as np
import torch

from slimface.core.faces import Faces
from slimface.core.record import Original
from slimface.data.widerface import read_widerface
from slimface.deploy.pipeline import Settings
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.scoring import protocol_of, score
from slimface.evaluate.widerface import truth_of
from slimface.loading import load

HERE = Path(__file__).resolve().parent
WEIGHTS = Path("retinaface") / "mobilenet0.25_Final.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain = runpy.run_path(str(HERE.parent / "tests" / "deploy" / "plain_retinaface.py"))
    network = plain["published_net"](Path(os.environ["SLIMFACE_WEIGHTS"]) / WEIGHTS)
    pictures = read_widerface(arguments.data, "val")
    truth = truth_of(pictures, arguments.data).restricted(one.name for one in pictures)
    by_name = {one.name: one for one in pictures}
    exact, whole = [], []
    for name in truth.names:
        boxes, scores, _ = plain["detect"](by_name[name].path, network)
        exact.append(Faces(boxes.astype(np.float32), scores))
        rounded = np.trunc(boxes).astype(np.float32)
        whole.append(Faces(rounded, scores))
    settings = Settings(score_floor=0.02, nms_overlap=0.4, pre_nms=5000, cap=750)
    protocol = protocol_of(truth, Original(), settings)
    for title, faces in (("plain", exact), ("plain, whole numbers", whole)):
        report(title, score(faces, truth, protocol, model=title, model_fingerprint="", resamples=0))
    ours = evaluate(
        load("retinaface-mobilenet025"),
        pictures,
        truth,
        rule=Original(),
        score_floor=0.02,
        nms_overlap=0.4,
        resamples=0,
    )
    report("slimface", ours)


def report(title, evaluation) -> None:
    figures = " / ".join(f"{100 * one.average_precision:.2f}" for one in evaluation.subsets)
    print(f"{title:24} {figures}   {evaluation.detections} boxes")


if __name__ == "__main__":
    main()
