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

from slimface.core.boxes import overlaps
from slimface.core.faces import LANDMARK_NAMES, Faces, Floats
from slimface.core.spec import CascadeSpec
from slimface.deploy.draw import write_picture
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import DecodedFaces, Picture, Pipeline, RawFaces, Settings
from slimface.errors import CheckpointError, MissingError, ParityError
from slimface.export.pictures import sample_pictures
from slimface.files import write_text

BOX_PX = 0.05
"""How far a corner or a point may lie off, in pixels."""

SCORE = 1e-3
"""How far a score may be off."""

RESIZED_PX = 256
"""Longer side of the picture in ``resized``."""

IMAGES = ("images", "resized")
"""Tensors that go into the network; the others come out."""


@dataclass(frozen=True, slots=True)
class Golden:
    """One picture and everything a model makes of it."""

    picture: Picture
    tensors: dict[str, Floats]
    """``images`` goes into the network, ``resized`` is the same of the picture made smaller, the
    others come out; empty for a cascade."""

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
            "resized_longest_px": RESIZED_PX,
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
        """Write the picture, ``golden.json`` and a raw little-endian float32 file a tensor.

        The picture is there twice: ``picture.ppm`` is for programs that read no PNG.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(folder / "picture.png", self.picture)
        height, width = self.picture.shape[:2]
        header = f"P6 {width} {height} 255\n".encode()
        (folder / "picture.ppm").write_bytes(header + self.picture.tobytes())
        for name, tensor in self.tensors.items():
            (folder / f"{name}.f32").write_bytes(tensor.astype("<f4").tobytes())
        write_text(folder / "golden.json", json.dumps(self.as_json(), indent=1) + "\n")


def golden(pipeline: Pipeline) -> Golden:
    """Return the first drawn scene on which a model finds a face, and what it makes of it.

    Raises:
        ParityError: It finds no face on any of them, so nothing could be proved.
    """
    for _, picture in sample_pictures():
        if len(pipeline.detect(picture)):
            return golden_of(pipeline, picture)
    raise ParityError(
        f"{pipeline.name} finds no face on the drawn scenes that prove a model elsewhere.\n"
        "Train it further, or lower the score floor of its spec."
    )


def golden_of(pipeline: Pipeline, picture: Picture) -> Golden:
    """Return a picture and what a model makes of it."""
    return Golden(picture, _tensors(pipeline, picture), pipeline.detect(picture))


def _tensors(pipeline: Pipeline, picture: Picture) -> dict[str, Floats]:
    if isinstance(pipeline.spec, CascadeSpec):
        return {}
    given_in = fed(pipeline, picture)
    answer = pipeline.network(given_in["images"])
    names: tuple[str, ...]
    if isinstance(answer, RawFaces):
        names = ("logits", "offsets", "landmarks")
    else:
        assert isinstance(answer, DecodedFaces)
        names = ("scores", "boxes", "landmarks")
    given = {name: getattr(answer, name) for name in names}
    return given_in | {name: tensor for name, tensor in given.items() if tensor is not None}


def fed(pipeline: Pipeline, picture: Picture) -> dict[str, Floats]:
    """Return what a network is fed with: the picture as it is, and made smaller."""
    resized = Settings(longest_px=RESIZED_PX)
    # Copies: a pipeline uses its memory again.
    tensors = [np.array(pipeline.prepare([picture], how)) for how in (Settings(), resized)]
    return dict(zip(IMAGES, tensors, strict=True))


def read_golden(folder: Path) -> Golden:
    """Read what ``Golden.write`` has written.

    Raises:
        MissingError: A file is not there.
        CheckpointError: One is damaged.
        DataError: The picture is.
    """
    try:
        said = json.loads((folder / "golden.json").read_bytes())
        tensors = {
            name: np.fromfile(folder / f"{Path(name).name}.f32", dtype="<f4").reshape(shape)
            for name, shape in said["tensors"].items()
        }
        faces = said["faces"]
        points = [face["landmarks"] for face in faces if "landmarks" in face]
        boxes = np.asarray([face["box"] for face in faces], np.float32).reshape(-1, 4)
        scores = np.asarray([face["score"] for face in faces], np.float32)
        found = Faces(boxes, scores, np.asarray(points, np.float32) if points else None)
    except FileNotFoundError as error:
        raise MissingError(
            f"{error.filename} is not there, so nothing can be compared.\nCopy the folder again."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: not a golden picture with its tensors and faces ({error}).\n"
            "It is damaged or cut off; copy the folder again."
        ) from None
    return Golden(read_picture(folder / "picture.png"), tensors, found)


def differences(
    wanted: Faces, found: Faces, *, box_px: float = BOX_PX, score: float = SCORE
) -> list[str]:
    """Return what is wrong with the faces found, a sentence each; nothing if they are the same.

    The order does not count: scores that are equal but for rounding come in any.
    """
    if len(wanted) != len(found):
        return [f"{len(found)} faces, not {len(wanted)}"]
    if not len(wanted):
        return []
    partner = overlaps(wanted.boxes, found.boxes).argmax(axis=1)
    if len(set(partner.tolist())) < len(wanted):
        return ["two faces in the place of one"]
    found = found.select(partner)
    apart = {
        "a corner": (float(np.abs(wanted.boxes - found.boxes).max()), box_px, "px"),
        "a score": (float(np.abs(wanted.scores - found.scores).max()), score, ""),
    }
    if wanted.landmarks is not None and found.landmarks is not None:
        shift = float(np.abs(wanted.landmarks - found.landmarks).max())
        apart["a landmark"] = (shift, box_px, "px")
    elif wanted.landmarks is not None:
        return ["no landmarks"]
    return [
        f"{what} is {far:.2g} {unit}".rstrip() + f" off, {most:g} at most"
        for what, (far, most, unit) in apart.items()
        if not far <= most
    ]
