"""Cascades that nobody has trained and that say yes to much of what they see, by all rules."""

from collections.abc import Callable

import torch

from slimface.core.spec import CascadeSpec, Preprocess
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


BGR = Preprocess(mean=(120, 110, 100), scale=0.01, colour="bgr")

RULES: dict[str, Callable[[], MTCNN]] = {
    "facenet": lively_cascade,
    "floor": lambda: lively_cascade(mtcnn.floor()),
    "blue first": lambda: lively_cascade(preprocess=BGR, inclusive=True),
    "linear and cut": lambda: lively_cascade(resize="linear", factor=0.6, level_pixel=0),
    "few": lambda: lively_cascade(proposals=40),
}
"""Cascades by what is special about their rules: every branch of a runner has something to do."""
