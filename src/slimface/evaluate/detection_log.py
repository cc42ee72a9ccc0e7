"""Detections kept on disk as they come, so that an interrupted evaluation goes on."""

import base64
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from slimface.core.faces import LANDMARK_NAMES, Faces, Floats
from slimface.core.record import Protocol
from slimface.errors import DataError, ProtocolError, RecipeError
from slimface.files import write_text

logger = logging.getLogger(__name__)

FILE = "detections.jsonl"


class Detected(NamedTuple):
    """What was found on one picture, and how long that took."""

    faces: Faces
    seconds: float


class DetectionLog:
    """A file that grows by a line a picture; the first line says which model and protocol.

    Boxes, scores and landmarks are stored exactly. A last line cut off by a kill is dropped.
    """

    def __init__(self, folder: Path, model_fingerprint: str, protocol: Protocol) -> None:
        """Open the log of a folder, or begin one.

        Raises:
            ProtocolError: The folder holds detections of another model or protocol.
            DataError: The file is not a log of detections, or damaged.
        """
        self.path = folder / FILE
        self.detected: dict[str, Detected] = {}
        """What is there, by the picture's name."""
        if self.path.exists():
            self._read(model_fingerprint, protocol)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            header = {"model": model_fingerprint, "protocol": protocol.model_dump(mode="json")}
            write_text(self.path, json.dumps(header) + "\n")
        self._file = self.path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, detected: Detected) -> None:
        """Append the detections on a picture; they are safe when this returns."""
        faces, seconds = detected
        row = {
            "picture": name,
            "seconds": round(seconds, 4),
            "boxes": _encode(faces.boxes),
            "scores": _encode(faces.scores),
        }
        if faces.landmarks is not None:
            row["landmarks"] = _encode(faces.landmarks)
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        self.detected[name] = detected

    def _read(self, model_fingerprint: str, protocol: Protocol) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if number == 1:
                    self._check(row, model_fingerprint, protocol)
                else:
                    self.detected[row["picture"]] = Detected(_faces(row), float(row["seconds"]))
            except ProtocolError:
                raise
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}:{number}: not a line of a log of detections ({error}).\n"
                    "Delete the file to detect again, or choose another --folder."
                ) from None
        if not lines:
            raise DataError(
                f"{self.path}: not a log of detections.\n"
                "Delete the file to detect again, or choose another --folder."
            )
        if whole < len(content):
            logger.info("%s: the last line was cut off and is dropped", self.path)
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def _check(self, header: Any, model_fingerprint: str, protocol: Protocol) -> None:
        if header["model"] != model_fingerprint:
            raise ProtocolError(
                f"{self.path} holds detections of another model ({header['model'][:12]}, not "
                f"{model_fingerprint[:12]}).\nChoose another --folder, or delete this one."
            )
        try:
            stored = Protocol.parse(header["protocol"], where=str(self.path))
        except RecipeError as error:
            raise ValueError(str(error).partition("\n")[0]) from None
        if found := stored.difference(protocol):
            field, theirs, ours = found
            raise ProtocolError(
                f"{self.path} was made by another protocol: {field} is {theirs}, not {ours}.\n"
                "Choose another --folder, or delete this one."
            )


def _faces(row: Any) -> Faces:
    points = row.get("landmarks")
    return Faces(
        _decode(row["boxes"]).reshape(-1, 4),
        _decode(row["scores"]),
        None if points is None else _decode(points).reshape(-1, len(LANDMARK_NAMES), 2),
    )


def _encode(array: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _decode(text: str) -> Floats:
    numbers = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    return numbers.astype(np.float32)
