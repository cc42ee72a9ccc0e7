"""RetinaFace by its published rules, against the plain rendering of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.boxes import overlaps
from slimface.data.drawn import Drawn, draw
from slimface.deploy.pipeline import Settings
from tests.deploy import plain_retinaface

FILE = Path("retinaface") / "mobilenet0.25_Final.pth"


@pytest.mark.data
@pytest.mark.slow
def test_boxes_and_landmarks_are_those_of_the_published_rules(
    weights_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that is no multiple of the strides, and suppression that counts the last pixel."""
    pytest.importorskip("torch")
    from slimface.loading import load

    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    scene = Drawn(count=1, height_px=250, width_px=333, fewest=6, most=8, smallest_px=40, seed=4)
    picture, _ = draw(scene, 0)
    path = tmp_path / "drawn.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    network = plain_retinaface.published_net(weights_root / FILE)
    boxes, scores, points = plain_retinaface.detect(path, network)
    faces = load("retinaface-mobilenet025").detect(
        picture, Settings(score_floor=0.02, nms_overlap=0.4)
    )
    table = overlaps(faces.boxes.astype(np.float64), boxes)
    best = table.argmax(axis=1)
    sure = faces.scores > 0.1
    assert sure.sum() >= 3
    assert (table.max(axis=1)[sure] > 0.999).all()
    np.testing.assert_allclose(faces.scores[sure], scores[best][sure], atol=1e-4)
    np.testing.assert_allclose(faces.landmarks[sure], points[best][sure], atol=0.02)  # type: ignore[index]
    assert abs(len(boxes) - len(faces)) <= 0.02 * len(boxes) + 1
