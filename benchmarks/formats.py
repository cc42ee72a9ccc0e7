"""Every format beside torch: the same faces, the same AP, how large, how long to write?

    OMP_NUM_THREADS=1 SLIMFACE_WEIGHTS=../shared/weights python benchmarks/formats.py \
        ../shared/data/wider --models eresfd extd-32 --formats onnx openvino ncnn --pictures 20

A file counts as equal when at least 99.5 % of the faces above 0.3 are found at an overlap of 0.99,
and its AP is within 0.1 point of torch's. A format of one size is compared with torch on the same
canvas. A picture is detected on once a side: faces and AP come from the same answers, and torch's
serve all files of one canvas. Results are kept in --out as they come: the same command goes on
where it stopped.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from slimface.bench.machine import load_average
from slimface.core.faces import Faces
from slimface.data.source import WiderFace
from slimface.deploy.media import read_picture
from slimface.deploy.pipeline import Picture, Pipeline, Predictor, Settings
from slimface.errors import SlimfaceError
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.export.formats import format_named
from slimface.export.gate import export, reference
from slimface.export.parity import MARGIN, Tolerance, parity
from slimface.files import write_text
from slimface.loading import load
from slimface.model import zoo

SIZE = (480, 640)
STRICT = Tolerance(iou=0.99, matched=0.995)
FLOOR = 0.3
HALF = Tolerance(iou=0.9, matched=0.98, score_drift=0.05, landmark_drift=0.05)


def main() -> None:
    shape = argparse.RawTextHelpFormatter
    words = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    words.add_argument("root", type=Path)
    words.add_argument("--models", nargs="+", default=["eresfd", "extd-32"])
    words.add_argument("--formats", nargs="+", default=["onnx", "openvino", "ncnn", "torchscript"])
    words.add_argument("--pictures", type=int, default=120)
    words.add_argument("--out", type=Path, default=Path("runs/formats"))
    words.add_argument("--no-ap", action="store_true", help="Compare faces only.")
    asked = words.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    every = WiderFace(root=str(asked.root)).pictures("val")
    step = max(1, len(every) // asked.pictures)
    pictures = every[::step]
    for model in asked.models:
        torch_sides: dict[tuple[int, int] | None, Remembering] = {}
        for word in asked.formats:
            place = asked.out / f"{model}-{word}-{len(pictures)}.json"
            if not place.is_file():
                row = measure(model, word, pictures, asked, torch_sides)
                write_text(place, json.dumps(row) + "\n")
            print(_line(json.loads(place.read_text())), flush=True)


class Remembering:
    """A predictor that answers a picture again from memory, at any score floor it has seen."""

    def __init__(self, predictor: Predictor) -> None:
        self.spec = predictor.spec
        self._predictor = predictor
        self._seen: dict[bytes, Faces] = {}

    def detect(self, picture: Picture, settings: Settings) -> Faces:
        """Return the faces scored at least the floor of ``settings``."""
        floor = settings.score_floor or 0.0
        scale = None if settings.scale == 1 else settings.scale
        asked = replace(settings, score_floor=min(floor, FLOOR - MARGIN), scale=scale)
        key = blake2b(picture.tobytes() + repr(asked).encode()).digest()
        if key not in self._seen:
            self._seen[key] = self._predictor.detect(picture, asked)
        found = self._seen[key]
        return found.select(found.scores >= floor)


def measure(
    model: str,
    word: str,
    pictures: Any,
    asked: argparse.Namespace,
    torch_sides: dict[tuple[int, int] | None, Remembering],
) -> dict[str, Any]:
    """Write one file and compare it; ``torch_sides`` keeps torch's answers by canvas."""
    name, _, precision = word.partition(":")
    options = {"height": SIZE[0], "width": SIZE[1]}
    if precision:
        options["precision"] = precision
    form = format_named(name).parse(options, where="formats.py")
    detector = zoo.load(model)
    path = asked.out / f"{model}-{precision or 'float32'}{form.suffix}"
    row: dict[str, Any] = {"model": model, "format": word, "pictures": len(pictures)}
    start = time.process_time()
    try:
        export(detector, path, form)
    except SlimfaceError as error:
        return row | {"error": str(error).partition("\n")[0]}
    row["bytes"] = sum(one.stat().st_size for one in _files(path))
    opened = load(path) if path.suffix != ".cweights" else form.open(path)
    candidate, canvas = Remembering(opened), cast(Pipeline, opened).canvas
    if canvas not in torch_sides:
        torch_sides[canvas] = Remembering(reference(detector, cast(Pipeline, opened)))
    sides = (torch_sides[canvas], candidate)
    report = parity(
        *sides,
        ((one.name, read_picture(one.path)) for one in pictures),
        score=FLOOR,
        tolerance=HALF if precision else STRICT,
        settings=Settings(),
    )
    row |= {
        "seconds": time.process_time() - start,
        "faces": report.faces,
        "matched": report.matched_share,
        "score_drift": report.largest_score_drift,
        "smallest_iou": report.smallest_iou,
        "load": load_average(),
    }
    if not asked.no_ap:
        truth = truth_of(pictures, asked.root)
        rule = Settings()
        results = [
            evaluate(
                side,
                pictures,
                truth,
                score_floor=FLOOR,
                nms_overlap=rule.nms_overlap,
                pre_nms=rule.pre_nms,
                cap=rule.cap,
                resamples=0,
                fingerprint="either",
            )
            for side in sides
        ]
        row["ap"] = [
            {subset.name: subset.average_precision or 0.0 for subset in result.subsets}
            for result in results
        ]
    return row


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [one for one in path.rglob("*") if one.is_file()]
    stem = path.with_suffix("").name
    return [
        one
        for one in path.parent.iterdir()
        if one.name in (path.name, f"{path.name}.spec.json")
        or (path.suffix in (".xml", ".param") and one.name == f"{stem}.bin")
    ]


def _line(row: dict[str, Any]) -> str:
    head = f"| {row['model']} | {row['format']} | {row['pictures']} |"
    if "error" in row:
        return f"{head} {row['error']} |"
    ap = ""
    if "ap" in row:
        ours, theirs = row["ap"]
        ap = f"AP {max(abs(ours[name] - theirs[name]) for name in ours):.1e} apart"
    return (
        f"{head} {row['matched']:.2%} of {row['faces']} | {row['score_drift']:.1e} | "
        f"{row['smallest_iou']:.4f} | {ap} | {row['bytes'] / 1000:,.0f} KB | "
        f"{row['seconds']:.0f} s |"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
