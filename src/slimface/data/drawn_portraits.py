"""The two public-domain portraits that come inside packages, cut out and pasted into scenes.

Eileen Collins (NASA, 1993; in scikit-image) and Grace Hopper (United States Navy, 1984; in
matplotlib). Nothing of them is stored here: the files are read where the packages are installed.
"""

import importlib.util
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from slimface.core.faces import Faces, Floats
from slimface.deploy.pipeline import Picture

log = logging.getLogger(__name__)

# Package, file, box, landmarks, outline of the head: pixels of the file, measured by hand.
_SOURCES = (
    ("skimage", "data/astronaut.png", (178, 65, 269, 176),
     ((203, 101), (246, 103), (224, 127), (205, 141), (243, 141)),
     ((251, 19), (227, 16), (203, 22), (156, 58), (153, 68), (157, 104), (170, 116), (174, 128),
      (182, 132), (186, 176), (194, 184), (251, 185), (266, 137), (275, 134), (296, 107),
      (300, 78), (293, 52), (276, 31))),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (177, 123, 355, 335),
     ((221, 188), (307, 187), (267, 245), (228, 282), (308, 278)),
     ((217, 34), (242, 24), (272, 27), (299, 43), (327, 48), (343, 66), (352, 86), (366, 90),
      (369, 140), (369, 182), (374, 190), (373, 230), (363, 265), (357, 288), (332, 307),
      (328, 335), (314, 350), (209, 350), (203, 315), (201, 295), (174, 284), (162, 260),
      (154, 210), (147, 190), (147, 112), (158, 103), (183, 63))),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A photograph of a face, and where face and head are on it."""

    picture: Picture
    faces: Faces
    """One face, with landmarks."""

    outline: Floats
    """Polygon around the head, shape ``(k, 2)``."""

    def mirrored(self) -> "Portrait":
        """Return the portrait mirrored left to right."""
        width = self.picture.shape[1]
        outline = self.outline.copy()
        outline[:, 0] = width - outline[:, 0]
        return Portrait(self.picture[:, ::-1].copy(), self.faces.mirrored(width), outline)

    def paste(
        self, picture: Picture, x: float, y: float, height_px: float
    ) -> tuple[Floats, Floats]:
        """Put the head into ``picture``, its face centred at ``x, y`` and ``height_px`` high.

        Returns:
            Box, shape ``(4,)``, in whole pixels, and landmarks, shape ``(5, 2)``.
        """
        box = self.faces.boxes[0]
        sides = box[2:] - box[:2]
        half = sides * (height_px / sides[1]) / 2
        # Whole pixels: the photograph is scaled to meet them, so that the truth is exact.
        place = np.rint([x - half[0], y - half[1], x + half[0], y + half[1]]).astype(np.float32)
        factor = (place[2:] - place[:2]) / sides
        offset = place[:2] - box[:2] * factor
        outline = self.outline * factor + offset
        low = np.maximum(np.floor(outline.min(axis=0)) - 1, 0).astype(int)
        high = np.ceil(outline.max(axis=0)).astype(int) + 1
        high = np.minimum(high, (picture.shape[1], picture.shape[0]))
        width, height = (int(side) for side in high - low)
        shown = _warped(self.picture, factor, offset - low, width, height)
        weight = np.zeros((height, width), dtype=np.uint8)
        fixed = np.rint((outline - low - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(weight, [fixed], 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(weight, (0, 0), 0.3 + 0.008 * height_px)
        share = soft[..., None].astype(np.float32) / 255
        region = picture[low[1] : high[1], low[0] : high[0]]
        blend = region + share * (shown - region.astype(np.float32))
        np.copyto(region, blend, casting="unsafe")
        points = self.faces.select([0]).moved(
            scale=(float(factor[0]), float(factor[1])), shift=(float(offset[0]), float(offset[1]))
        )
        assert points.landmarks is not None
        return place, points.landmarks[0]


def _warped(
    picture: Picture, factor: Floats, offset: Floats, width: int, height: int
) -> npt.NDArray[np.float32]:
    """Scale and move, with every source pixel counted: halve first until hardly any is skipped."""
    factor = factor.astype(np.float64)
    while factor.min() < 0.6:
        picture = np.asarray(
            cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
        factor = factor * 2
    # warpAffine counts from the centre of the first pixel, boxes count from its corner.
    start = offset + 0.5 * factor - 0.5
    matrix = np.array([[factor[0], 0, start[0]], [0, factor[1], start[1]]])
    warped = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.float32)


@lru_cache(maxsize=1)
def portraits() -> tuple[Portrait | None, ...]:
    """Return both portraits and their mirror images; None where the package is not installed."""
    found: list[Portrait | None] = []
    for package, path, box, landmarks, outline in _SOURCES:
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        picture = (
            cv2.imread(str(Path(folders[0]) / path), cv2.IMREAD_COLOR_RGB) if folders else None
        )
        if picture is None:
            log.info("%s is not installed: drawn faces take the place of its portrait", package)
            found += [None, None]
        else:
            faces = Faces.annotated([box], [landmarks])
            portrait = Portrait(
                np.asarray(picture, dtype=np.uint8), faces, np.array(outline, dtype=np.float32)
            )
            found += [portrait, portrait.mirrored()]
    return tuple(found)
