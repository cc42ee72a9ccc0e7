"""A data set of bright rectangles, and a detector that truly finds them."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from slimface.core.anchors import AnchorGrid, AnchorLevel
from slimface.core.faces import Faces
from slimface.core.spec import Architecture, DetectorSpec, Preprocess
from slimface.data.pictures import Annotated, PictureSet
from slimface.data.widerface import read_widerface, write_widerface
from slimface.evaluate.truth import Truth


class Spots:
    """Finds bright rectangles; the brighter, the surer."""

    spec = DetectorSpec(
        name="spots",
        architecture=Architecture(name="spots"),
        preprocess=Preprocess(),
        anchors=AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(16.0,)),)),
    )

    def __init__(self, identity="spots", dies_after=None):
        self.identity, self.dies_after = identity, dies_after
        self.asked = []

    def fingerprint(self):
        return self.identity

    def detect(self, picture, settings):
        if len(self.asked) == self.dies_after:
            raise KeyboardInterrupt
        self.asked.append(settings)
        height, width = settings.network_size(*picture.shape[:2])
        grey = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)[..., 0]
        count, _, stats, centres = cv2.connectedComponentsWithStats((grey > 90).astype(np.uint8))
        x, y, w, h = stats[1:count, :4].astype(np.float32).T
        centre = centres[1:count].astype(int)
        scores = grey[centre[:, 1], centre[:, 0]].astype(np.float32) / 255
        ratio = np.float32([picture.shape[1] / width, picture.shape[0] / height] * 2)
        faces = Faces(np.stack([x, y, x + w, y + h], axis=1) * ratio, scores)
        faces = faces.select(np.argsort(-scores, kind="stable"))
        return faces.above(settings.score_floor or 0)


@pytest.fixture
def spots():
    """The class, so that a test can make several."""
    return Spots


class Scene(NamedTuple):
    root: Path
    pictures: PictureSet
    truth: Truth


@pytest.fixture
def scene(tmp_path):
    """Eight pictures in WIDER FACE's layout; some rectangles are too dark, some are no faces."""
    draws = np.random.default_rng(5)
    pictures = []
    for i in range(8):
        canvas = draws.integers(0, 40, (120, 160, 3)).astype(np.uint8)
        boxes = []
        for column in range(draws.integers(0, 4)):
            x, y = 50 * column + draws.integers(2, 10), draws.integers(2, 60)
            w, h = draws.integers(10, 36, 2)
            canvas[y : y + h, x : x + w] = draws.integers(60, 250)
            if draws.random() < 0.8:
                boxes.append([x, y, x + w, y + h])
        path = tmp_path / "drawn" / f"{i % 2}--Event" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), canvas)
        pictures.append(
            Annotated(path.relative_to(tmp_path / "drawn").as_posix(), path, Faces.annotated(boxes))
        )
    root = tmp_path / "wider"
    write_widerface(PictureSet("drawn", tuple(pictures)), root, "val")
    read = read_widerface(root, "val")
    return Scene(root, read, Truth.of(read))
