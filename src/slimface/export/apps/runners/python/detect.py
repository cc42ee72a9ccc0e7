"""Faces in pictures, from a slimface bundle alone: NumPy, ONNX Runtime, and OpenCV or Pillow.

    python detect.py photo.jpg            faces as JSON
    python detect.py --golden             proves this copy on the bundle's golden picture

One file, to be copied into a project of your own: ``Detector(bundle).detect(picture)``.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

BUNDLE = Path(__file__).resolve().parents[2]
READS_VERSION = 1


class BundleError(Exception):
    """What is wrong with a bundle, a model or a picture, and what to do now."""


class Detector:
    """The first ONNX file of a bundle, run by ONNX Runtime."""

    def __init__(self, bundle: Path = BUNDLE, *, threads: int = 0) -> None:
        import onnxruntime

        self.bundle = bundle
        said = read_spec(bundle / "spec.json")
        files = [file for file in said["files"] if file["format"] == "onnx"]
        if not files:
            formats = ", ".join(file["format"] for file in said["files"])
            raise BundleError(
                f"{bundle} has no ONNX file, only {formats}. Export it with onnx among its files."
            )
        self.spec, self.file = said["spec"], files[0]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        path = bundle / self.file["path"]
        try:
            self.session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}. Copy it again.") from None
        except Exception as error:
            raise BundleError(f"{path}: {error}. Copy the bundle again.") from error

    def detect(
        self,
        picture: np.ndarray,
        *,
        score: float | None = None,
        overlap: float | None = None,
        longest: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the faces of an 8-bit RGB picture ``(height, width, 3)``, best first.

        ``score``, ``overlap`` and ``longest`` (pixels of the longer side) stand in the spec, or
        leave the picture its size, where they are not given.
        """
        images, ratio = prepare(self.spec, picture, longest, self.file["canvas"])
        return read(self.spec, self.run(images), images.shape, ratio, score, overlap)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the network's outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        tensors = self.session.run(names, {self.session.get_inputs()[0].name: images})
        return dict(zip(names, tensors, strict=True))


def read_spec(path: Path) -> dict[str, Any]:
    """Read ``spec.json`` of a bundle."""
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        version, task = said["version"], said["spec"]["task"]
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}. This file belongs into runners/python of a "
            "bundle; or name the bundle with --bundle."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is no spec of a bundle. Copy the bundle again.") from None
    if version > READS_VERSION or task != "detection":
        raise BundleError(
            f"{path} has version {version} and is for {task}; this file reads detection up to "
            f"version {READS_VERSION}. Take the runner of the same bundle."
        )
    return said


def prepare(
    spec: dict[str, Any],
    picture: np.ndarray,
    longest: int | None = None,
    canvas: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's input, and its pixels for one of the picture: x, y."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise BundleError(
            f"a picture is (height, width, 3) of uint8, not {picture.shape} of {picture.dtype}. "
            "Convert it to 8-bit RGB."
        )
    rule = spec["preprocess"]
    height, width = picture.shape[:2]
    scale = longest / max(height, width) if longest else 1
    rows, columns = (max(1, round(side * scale)) for side in (height, width))
    if canvas:
        fit = min(canvas[0] / rows, canvas[1] / columns, 1)
        rows, columns = (max(1, round(side * fit)) for side in (rows, columns))
    multiple = rule["multiple_of"]
    padded = canvas or [-(-side // multiple) * multiple for side in (rows, columns)]
    pixels = resized(picture, rows, columns).astype(np.float32)
    pixels -= np.asarray(rule["mean"], np.float32)
    pixels *= np.float32(rule["scale"])
    if rule["colour"] == "bgr":
        pixels = pixels[:, :, ::-1]
    images = np.zeros((1, 3, *padded), np.float32)
    images[0, :, :rows, :columns] = pixels.transpose(2, 0, 1)
    return images, np.asarray([columns / width, rows / height], np.float32)


def resized(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear, to the bits of OpenCV's INTER_LINEAR: weights in 2048ths, no antialiasing."""
    height, width = picture.shape[:2]
    if (height, width) == (rows, columns):
        return picture
    pixels = picture.astype(np.int32)
    if (height, width) == (2 * rows, 2 * columns):
        # OpenCV takes means here, and rounds their halves up.
        quarters = np.stack([pixels[y::2, x::2] for y in (0, 1) for x in (0, 1)])
        means: np.ndarray = (quarters.sum(axis=0) + 2) >> 2
        return means.astype(np.uint8)
    places, shares, outside = taps(width, columns)
    # Beyond the border columns are taken whole; rows keep both weights.
    shares[:, outside] = [[2048], [0]]
    lines = pixels[:, places[0]] * shares[0][:, None] + pixels[:, places[1]] * shares[1][:, None]
    lines >>= 4
    places, shares, _ = taps(height, rows)
    above, below = (lines[places[i]] * shares[i][:, None, None] >> 16 for i in (0, 1))
    sized: np.ndarray = ((above + below + 2) >> 2).astype(np.uint8)
    return sized


def taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two pixels each is mixed from, their weights, and which lie beyond the border."""
    place = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    part = place - first.astype(np.float32)
    weights = np.rint(np.stack([1 - part, part]) * np.float32(2048)).astype(np.int32)
    places = np.stack([first, first + 1])
    return places.clip(0, before - 1), weights, (first < 0) | (first + 1 >= before)


def anchors_of(grid: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return centre x, centre y, width, height of every anchor: by level, row, column, size."""
    parts = []
    for level in grid["levels"]:
        stride = level["stride"]
        step = level["step"] or stride
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, size = np.meshgrid(
            (np.arange(rows) + grid["centre"]) * step,
            (np.arange(columns) + grid["centre"]) * step,
            np.asarray(level["sizes"], np.float64),
            indexing="ij",
        )
        parts.append(np.stack([x, y, size, size * grid["height_per_width"]], -1).reshape(-1, 4))
    anchors = np.concatenate(parts).astype(np.float32)
    if grid["clip"]:
        np.clip(anchors, 0, [width, height] * 2, out=anchors)
    return anchors


def read(
    spec: dict[str, Any],
    tensors: dict[str, np.ndarray],
    shape: tuple[int, ...],
    ratio: np.ndarray,
    score: float | None = None,
    overlap: float | None = None,
) -> list[dict[str, Any]]:
    """Turn the network's outputs for an input of a shape into faces."""
    plan, codec = spec["postprocess"], spec["codec"]
    floor = plan["score_floor"] if score is None else score
    anchors = anchors_of(spec["anchors"], *shape[2:])
    decoded = "scores" in tensors
    values = tensors["scores" if decoded else "logits"][0]
    if values.shape != (len(anchors),) or np.isnan(values).any():
        raise BundleError(
            f"the network answers {values.shape} numbers for {len(anchors)} anchors, or NaN. "
            "Model and spec do not belong together; copy the bundle again."
        )
    at = np.flatnonzero(values >= (floor if decoded else logit(floor)))
    at = at[np.argsort(-values[at], kind="stable")][: plan["pre_nms"]]
    points = tensors["landmarks"][0, at] if spec["landmarks"] else None
    if decoded:
        boxes = tensors["boxes"][0, at]
    else:
        offsets, own = tensors["offsets"][0, at], anchors[at]
        centre = own[:, :2] + offsets[:, :2] * codec["centre_variance"] * own[:, 2:]
        half = own[:, 2:] * np.exp(offsets[:, 2:] * codec["size_variance"]) * 0.5
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        if points is not None:
            shift = points * codec["centre_variance"] * own[:, None, 2:]
            points = own[:, None, :2] + shift
    kept = suppress(boxes, plan["nms_overlap"] if overlap is None else overlap, plan["cap"])
    faces = []
    for k in kept:
        value = float(values[at[k]])
        face: dict[str, Any] = {
            "box": (boxes[k].reshape(2, 2) / ratio).reshape(-1).tolist(),
            "score": value if decoded else 1 / (1 + math.exp(min(-value, 700))),
        }
        if points is not None:
            face["landmarks"] = (points[k] / ratio).tolist()
        faces.append(face)
    return faces


def logit(score: float) -> float:
    """Return the log-odds of a score."""
    if not 0 < score < 1:
        return math.copysign(math.inf, score - 0.5)
    return math.log(score / (1 - score))


def suppress(boxes: np.ndarray, overlap: float, cap: int) -> list[int]:
    """Greedy suppression of boxes sorted best first; returns the places of those that stay."""
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    alive = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if len(kept) == cap:
            break
        if not alive[i]:
            continue
        kept.append(i)
        low = np.maximum(boxes[i, :2], boxes[i + 1 :, :2])
        high = np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[i] + areas[i + 1 :] - shared
        alive[i + 1 :] &= ~((shared > 0) & (shared > overlap * union))
    return kept


def read_picture(path: Path) -> np.ndarray:
    """Return a picture file as 8-bit RGB, upright."""
    try:
        import cv2
    except ImportError:
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise BundleError(f"{path} is no picture that OpenCV reads. Convert it to JPEG or PNG.")
    return np.ascontiguousarray(picture[:, :, ::-1])


def check_golden(detector: Detector) -> list[str]:
    """Return what differs from the golden picture, a line each."""
    folder = detector.bundle / detector.file["golden"]
    told = json.loads((folder / "golden.json").read_bytes())
    tensors = {
        name: np.fromfile(folder / f"{name}.f32", "<f4").reshape(shape)
        for name, shape in told["tensors"].items()
    }
    picture = read_picture(folder / "picture.png")
    wrong = []
    for name, longest in (("images", None), ("resized", told["resized_longest_px"])):
        images, ratio = prepare(detector.spec, picture, longest, detector.file["canvas"])
        # One byte is what resizing may round to the other side.
        allowed = 1e-4 if (ratio == 1).all() else 1.01 * detector.spec["preprocess"]["scale"]
        if images.shape != tensors[name].shape:
            wrong.append(f"{name} has shape {images.shape}, not {tensors[name].shape}")
        elif (far := float(np.abs(images - tensors[name]).max())) > allowed:
            wrong.append(f"{name} is {far:.2g} off")
    faces, limit = detector.detect(picture), told["tolerance"]
    if len(faces) != len(told["faces"]):
        return [*wrong, f"{len(faces)} faces, not {len(told['faces'])}"]
    for face, golden in zip(by_place(faces), by_place(told["faces"]), strict=True):
        for key, most in (("box", limit["box_px"]), ("landmarks", limit["box_px"])):
            if key in golden:
                far = float(np.abs(np.subtract(face[key], golden[key])).max())
                wrong += [f"{key} {far:.2g} px off"] if far > most else []
        if abs(face["score"] - golden["score"]) > limit["score"]:
            wrong.append(f"score {face['score']:.4f}, not {golden['score']:.4f}")
    return wrong


def by_place(faces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort faces by their corners: scores that are equal but for rounding come in any order."""
    return sorted(faces, key=lambda face: [round(side, 1) for side in face["box"]])


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Faces in pictures, from a slimface bundle.")
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--score", type=float, help="lowest score; default: as the spec says")
    parser.add_argument("--longest", type=int, help="resize the longer side to so many pixels")
    parser.add_argument("--golden", action="store_true", help="prove this copy")
    asked = parser.parse_args()
    if bool(asked.pictures) == asked.golden:
        parser.error("give pictures, or --golden")
    try:
        detector = Detector(asked.bundle)
        if asked.golden:
            wrong = check_golden(detector)
            print("\n".join(wrong) or "golden: passed")
            return 1 if wrong else 0
        for path in asked.pictures:
            faces = detector.detect(read_picture(path), score=asked.score, longest=asked.longest)
            print(json.dumps({"picture": str(path), "faces": faces}))
    except (BundleError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
