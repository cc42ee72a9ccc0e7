"""Cascades that nobody has trained and that say yes to much of what they see, by all rules."""

import torch

from slimface.core.spec import CascadeSpec
from slimface.model import mtcnn
from slimface.model.build import build
from slimface.model.mtcnn import MTCNN


def lively_cascade(usual: CascadeSpec | None = None, **changes: object) -> MTCNN:
    """Return a cascade with ``usual`` rules but low floors; ``changes`` are of its spec."""
    usual = usual or mtcnn.facenet()
    asked = {
        "proposal_floor": 0.3,
        "refine_floor": 0.3,
        "min_face_px": 30.0,
        "postprocess": usual.postprocess.model_copy(update={"score_floor": 0.3}),
    }
    detector = build(usual.model_copy(update=asked | changes), seed=3).eval()
    with torch.no_grad():
        for net in (detector.pnet, detector.rnet, detector.onet):
            net.scores.bias[1] += 0.5
    return detector
