"""A handful of pictures and the smallest detector that can learn from them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.faces import Faces
from slimface.data.batches import Batches
from slimface.data.pictures import Annotated, PictureSet
from slimface.data.transforms import PlainAugment
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.detector import Detector


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    found = []
    for i in range(12):
        canvas = rng.integers(0, 60, (96, 96, 3), dtype=np.uint8)
        x, y, side = (int(v) for v in rng.integers((8, 8, 16), (40, 40, 48)))
        cv2.circle(canvas, (x + side // 2, y + side // 2), side // 2, (220, 180, 150), -1)
        path = Path(folder) / f"{i}.png"
        cv2.imwrite(str(path), canvas)
        found.append(Annotated(path.name, path, Faces.annotated([[x, y, x + side, y + side]])))
    return PictureSet("circles", tuple(found))


@pytest.fixture
def detector() -> Detector:
    return build(eresfd.naver(width=4), seed=0)


def batches(pictures: PictureSet, size_px: int = 64, batch_size: int = 4, **place: int) -> Batches:
    return Batches(
        pictures,
        augment=PlainAugment(),
        size_px=size_px,
        batch_size=batch_size,
        workers=0,
        **place,
    )
