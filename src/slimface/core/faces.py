"""Faces: the boxes, scores and landmarks of one picture, annotated or detected."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from slimface.errors import MissingError

if TYPE_CHECKING:
    import supervision

Floats = npt.NDArray[np.float32]

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Order of the five points; left and right as seen in the picture."""

_MIRRORED_ORDER = [1, 0, 2, 4, 3]


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one picture.

    Boxes are corners ``x1 y1 x2 y2`` in pixels of the original picture, ``x2`` and ``y2``
    exclusive: a face of width ``w`` at ``x`` has ``x2 = x + w``.
    """

    boxes: Floats
    """Shape ``(n, 4)``."""

    scores: Floats
    """Shape ``(n,)``, in [0, 1]; ones for annotations. Detections are sorted, best first."""

    landmarks: Floats | None = None
    """Shape ``(n, 5, 2)`` as x, y in pixels; NaN where a face has none. None: never any."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(f"boxes {self.boxes.shape} and scores {self.scores.shape} do not fit")
        if self.landmarks is not None and self.landmarks.shape != (count, 5, 2):
            raise ValueError(f"landmarks have shape {self.landmarks.shape}, not ({count}, 5, 2)")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def annotated(cls, boxes: npt.ArrayLike, landmarks: npt.ArrayLike | None = None) -> Self:
        """Faces that are known to be there: every score is 1."""
        corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        points = (
            None
            if landmarks is None
            else np.asarray(landmarks, dtype=np.float32).reshape(-1, len(LANDMARK_NAMES), 2)
        )
        return cls(corners, np.ones(len(corners), dtype=np.float32), points)

    @classmethod
    def none(cls) -> Self:
        """No face at all."""
        return cls.annotated(np.zeros((0, 4), dtype=np.float32))

    @property
    def heights(self) -> Floats:
        """Height of each box in pixels, shape ``(n,)``."""
        return self.boxes[:, 3] - self.boxes[:, 1]

    def select(self, index: Any) -> Self:
        """Return the faces that a NumPy index (mask, integers, slice) picks, in its order."""
        return type(self)(
            self.boxes[index],
            self.scores[index],
            None if self.landmarks is None else self.landmarks[index],
        )

    def above(self, score: float) -> Self:
        """Return the faces with at least this score."""
        return self.select(self.scores >= score)

    def moved(
        self, *, scale: tuple[float, float] = (1, 1), shift: tuple[float, float] = (0, 0)
    ) -> Self:
        """Return the faces at ``scale * point + shift``, both as x, y."""
        factor = np.asarray(scale, dtype=np.float32)
        offset = np.asarray(shift, dtype=np.float32)
        return type(self)(
            self.boxes * np.tile(factor, 2) + np.tile(offset, 2),
            self.scores,
            None if self.landmarks is None else self.landmarks * factor + offset,
        )

    def mirrored(self, width: float) -> Self:
        """Return the faces of the picture mirrored left to right; left and right points swap."""
        boxes = self.boxes[:, [2, 1, 0, 3]].copy()
        boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
        points = None
        if self.landmarks is not None:
            points = self.landmarks[:, _MIRRORED_ORDER].copy()
            points[..., 0] = width - points[..., 0]
        return type(self)(boxes, self.scores, points)

    def as_rows(self) -> list[dict[str, Any]]:
        """Return one JSON-ready mapping a face: ``box``, ``score`` and, if any, ``landmarks``."""
        rows: list[dict[str, Any]] = []
        for i, (box, score) in enumerate(zip(self.boxes, self.scores, strict=True)):
            row: dict[str, Any] = {
                "box": [round(float(side), 2) for side in box],
                "score": round(float(score), 5),
            }
            if self.landmarks is not None and np.isfinite(self.landmarks[i]).all():
                row["landmarks"] = {
                    name: [round(float(x), 2), round(float(y), 2)]
                    for name, (x, y) in zip(LANDMARK_NAMES, self.landmarks[i], strict=True)
                }
            rows.append(row)
        return rows

    def to_supervision(self) -> "supervision.Detections":
        """Return the faces as ``supervision.Detections``.

        Raises:
            MissingError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingError(
                "Faces.to_supervision() needs the package supervision, which is not installed.\n"
                "Install it with: pip install 'slimface[supervision]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=np.zeros(len(self), dtype=int)
        )
