"""Golden: a picture, what the network is fed with it, what it answers, and the faces in it.

Whoever runs a model elsewhere (a browser, a phone, a program in C++) compares with these, step by
step: a wrong input is a fault of the preprocessing, wrong tensors one of the runtime, wrong faces
one of the decoding.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.faces import LANDMARK_NAMES, Faces, Floats
from slimface.deploy.draw import write_picture
from slimface.deploy.pipeline import DecodedFaces, Picture, Pipeline, RawFaces
from slimface.errors import ParityError
from slimface.export.pictures import sample_pictures
from slimface.files import write_text

BOX_PX = 0.05
"""How far a corner or a point may lie off, in pixels."""

SCORE = 1e-3
"""How far a score may be off."""


@dataclass(frozen=True, slots=True)
class Golden:
    """One picture and everything a model makes of it."""

    picture: Picture
    tensors: dict[str, Floats]
    """``images`` goes into the network, the others come out; empty for a cascade."""

    faces: Faces
    """As detected with the settings of the spec."""

    def as_json(self) -> dict[str, Any]:
        """Return faces, tolerances, and shapes of the tensors."""
        height, width = self.picture.shape[:2]
        return {
            "picture": "picture.png",
            "height": height,
            "width": width,
            "tolerance": {"box_px": BOX_PX, "score": SCORE},
            "tensors": {name: list(tensor.shape) for name, tensor in self.tensors.items()},
            "landmark_names": list(LANDMARK_NAMES),
            "faces": [
                {
                    "box": self.faces.boxes[i].tolist(),
                    "score": float(self.faces.scores[i]),
                    **(
                        {}
                        if self.faces.landmarks is None
                        else {"landmarks": self.faces.landmarks[i].tolist()}
                    ),
                }
                for i in range(len(self.faces))
            ],
        }

    def write(self, folder: Path) -> None:
        """Write ``picture.png``, ``golden.json`` and a raw little-endian float32 file a tensor."""
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(folder / "picture.png", self.picture)
        for name, tensor in self.tensors.items():
            (folder / f"{name}.f32").write_bytes(tensor.astype("<f4").tobytes())
        write_text(folder / "golden.json", json.dumps(self.as_json(), indent=1) + "\n")


def golden(pipeline: Pipeline) -> Golden:
    """Return the first drawn scene on which a model finds a face, and what it makes of it.

    Raises:
        ParityError: It finds no face on any of them, so nothing could be proved.
    """
    for _, picture in sample_pictures():
        faces = pipeline.detect(picture)
        if len(faces):
            return Golden(picture, _tensors(pipeline, picture), faces)
    raise ParityError(
        f"{pipeline.name} finds no face on the drawn scenes that prove a model elsewhere.\n"
        "Train it further, or lower the score floor of its spec."
    )


def _tensors(pipeline: Pipeline, picture: Picture) -> dict[str, Floats]:
    if pipeline.spec.task != "detection":
        return {}
    images = np.array(pipeline.prepare([picture]))
    answer = pipeline.network(images)
    names: tuple[str, ...]
    if isinstance(answer, RawFaces):
        names = ("logits", "offsets", "landmarks")
    else:
        assert isinstance(answer, DecodedFaces)
        names = ("scores", "boxes", "landmarks")
    given = {name: getattr(answer, name) for name in names}
    return {"images": images, **{name: t for name, t in given.items() if t is not None}}
