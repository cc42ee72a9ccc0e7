"""Every format beside torch: the same faces, the same AP, how large, how long to write?

    OMP_NUM_THREADS=1 SLIMFACE_WEIGHTS=../shared/weights python benchmarks/formats.py \
        ../shared/data/wider --models eresfd extd-32 --formats onnx openvino ncnn --pictures 20

A file counts as equal when at least 99.5 % of the faces above 0.3 are found at an overlap of 0.99,
and its AP is within 0.1 point of torch's. A format of one size is compared with torch on the same
canvas. Results are kept in --out as they come: the same command goes on where it stopped.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from slimface.bench.machine import load_average
from slimface.data.source import WiderFace
from slimface.deploy.media import read_picture
from slimface.errors import SlimfaceError
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.export.formats import format_named
from slimface.export.gate import export, reference
from slimface.export.parity import Tolerance
from slimface.files import write_text
from slimface.loading import load
from slimface.model import zoo

SIZE = (480, 640)
STRICT = Tolerance(iou=0.99, matched=0.995)
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
        for word in asked.formats:
            place = asked.out / f"{model}-{word}-{len(pictures)}.json"
            if not place.is_file():
                row = measure(model, word, pictures, asked)
                write_text(place, json.dumps(row) + "\n")
            print(_line(json.loads(place.read_text())), flush=True)


def measure(model: str, word: str, pictures: Any, asked: argparse.Namespace) -> dict[str, Any]:
    name, _, precision = word.partition(":")
    options = {"height": SIZE[0], "width": SIZE[1]}
    if precision:
        options["precision"] = precision
    form = format_named(name).parse(options, where="formats.py")
    detector = zoo.load(model)
    path = asked.out / f"{model}-{precision or 'float32'}{form.suffix}"
    seen = ((one.name, read_picture(one.path)) for one in pictures)
    row: dict[str, Any] = {"model": model, "format": word, "pictures": len(pictures)}
    start = time.process_time()
    try:
        report = export(
            detector, path, form, pictures=seen, tolerance=HALF if precision else STRICT
        )
    except SlimfaceError as error:
        return row | {"error": str(error).partition("\n")[0]}
    row |= {
        "seconds": time.process_time() - start,
        "bytes": sum(one.stat().st_size for one in _files(path)),
        "faces": report.faces,
        "matched": report.matched_share,
        "score_drift": report.largest_score_drift,
        "smallest_iou": report.smallest_iou,
        "load": load_average(),
    }
    if not asked.no_ap:
        candidate = load(path) if path.suffix != ".cweights" else form.open(path)
        truth = truth_of(pictures, asked.root)
        results = [
            evaluate(side, pictures, truth, score_floor=0.3, resamples=1, fingerprint="either")
            for side in (reference(detector, candidate), candidate)
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
