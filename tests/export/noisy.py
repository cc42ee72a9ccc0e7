"""A network that answers noise, so that every branch of a runner's decoding has something to do."""

import numpy as np

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.spec import Architecture, DetectorSpec, Postprocess, Preprocess
from slimface.deploy.pipeline import DecodedFaces, Pipeline, RawFaces
from slimface.export.golden import Golden, golden_of


class Noise:
    """A network that answers noise: every branch of the decoding has something to do."""

    def __init__(self, spec: DetectorSpec, *, decoded: bool) -> None:
        self.spec, self.decoded = spec, decoded

    def __call__(self, images):
        rng = np.random.default_rng(5)
        count = self.spec.anchors.count(*images.shape[2:])
        values = rng.normal(size=(1, count)).astype(np.float32)
        shape = (1, count, self.spec.landmarks, 2)
        points = rng.normal(size=shape).astype(np.float32) if self.spec.landmarks else None
        if self.decoded:
            low = rng.uniform(0, 80, size=(1, count, 2))
            boxes = np.concatenate([low, low + rng.uniform(1, 60, size=low.shape)], axis=2)
            return DecodedFaces(1 / (1 + np.exp(-values)), boxes.astype(np.float32), points)
        return RawFaces(values, rng.normal(size=(1, count, 4)).astype(np.float32), points)


def noisy(*, decoded=False, canvas=None, **changes) -> Pipeline:
    fields = {
        "name": "noise",
        "architecture": Architecture(name="tiny"),
        "preprocess": Preprocess(mean=(123, 117, 104), scale=0.017, colour="bgr", multiple_of=32),
        "anchors": AnchorGrid(
            levels=(AnchorLevel(stride=8, sizes=(16, 32)), AnchorLevel(stride=16, sizes=(64.0,)))
        ),
        "postprocess": Postprocess(score_floor=0.3, nms_overlap=0.4, cap=40),
        "landmarks": 5,
    }
    spec = DetectorSpec(**fields | changes)
    return Pipeline(spec, Noise(spec, decoded=decoded), canvas=canvas)


PICTURE = np.random.default_rng(3).integers(0, 256, (90, 141, 3), dtype=np.uint8)


CASES = {
    "raw": {},
    "no landmarks": {"landmarks": 0},
    "decoded": {"decoded": True},
    "small canvas": {"canvas": (64, 96)},
    "large canvas": {"canvas": (128, 160)},
    "clipped": {
        "anchors": AnchorGrid(levels=(AnchorLevel(stride=8, sizes=(20,)),), clip=True, centre=0)
    },
    "tall": {
        "anchors": AnchorGrid(
            levels=(AnchorLevel(stride=16, sizes=(20,), step=8),), height_per_width=1.25
        )
    },
}
"""Arguments of ``noisy``, by what is special about them."""


def proof_of(pipeline: Pipeline) -> Golden:
    """Return the noise picture, and all that a pipeline makes of it."""
    return golden_of(pipeline, PICTURE)
