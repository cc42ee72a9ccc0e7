"""What a detector with published weights must find on a real picture."""

from pathlib import Path

import numpy as np

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.data.pictures import Annotated
from slimface.data.widerface import read_widerface
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.model.detector import Detector
from slimface.model.predictor import TorchNetwork


def group_picture(root: Path) -> Annotated:
    """The first picture of 5 to 10 faces of at least 40 pixels each, none of them difficult."""
    hard = ("invalid", "blur", "occlusion", "pose")
    for one in read_widerface(root, "val"):
        easy = all((one.attribute(name) == 0).all() for name in hard)
        if 5 <= len(one.faces) <= 10 and one.faces.heights.min() >= 40 and easy:
            return one
    raise LookupError("no such picture")


def assert_faces_are_found(detector: Detector, root: Path) -> Faces:
    """Every face of the group picture is found, and not twice as many more."""
    one = group_picture(root)
    pipeline = Pipeline(detector.spec, TorchNetwork(detector))
    found = pipeline.detect(read_picture(one.path), Settings(longest_px=640))
    overlap = overlaps(one.faces.boxes, found.boxes)
    assert (overlap.max(axis=1) > 0.5).all()
    assert len(found) <= 2 * len(one.faces)
    return found.select(overlap.argmax(axis=1).astype(np.intp))
