"""Eight bits beside 32: average precision, bytes and milliseconds, each file in its own runtime.

    python benchmarks/int8.py --data ../shared/data/wider --out /tmp/int8 eresfd ...

For each model a float file and one of eight bits are written for ONNX Runtime (QDQ) and for
OpenVINO (NNCF), evaluated on the validation pictures, and timed in turns with one thread (time of
the processor; the load of the machine is printed). Files and figures that are in --out are not
made again, so a run that was stopped goes on. classifier:resnet18 has random weights and is only
timed.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slimface.bench.side_by_side import detection_ms
from slimface.compress.quantize.export import spread, write_float
from slimface.compress.quantize.ptq import SUFFIXES, model_bytes, quantize
from slimface.compress.quantize.settings import Quantization
from slimface.data.source import WiderFace
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.export.onnx import Onnx
from slimface.export.openvino import OpenVino
from slimface.files import bytes_of
from slimface.loading import load
from slimface.model import zoo
from slimface.model.build import build
from slimface.model.classifier import classifier

FORMS = {"onnxruntime": Onnx(), "openvino": OpenVino()}
RESNET = "classifier:resnet18"


def main() -> None:
    """Make, evaluate and time what is asked for."""
    asked = arguments()
    source = WiderFace(root=asked.data)
    for model in asked.models:
        folder = asked.out / model.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        files = written(model, folder, source, asked)
        if model != RESNET:
            for name, path in files.items():
                print(json.dumps({"model": model, **evaluated(name, path, source, asked.limit)}))
        if not asked.no_times:
            print(json.dumps({"model": model, **timed(files, source)}), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runtimes", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--keep", default="auto")
    parser.add_argument("--sqnr", type=float, default=Quantization().sqnr_db)
    parser.add_argument("--pictures", type=int, default=32, help="to calibrate on")
    parser.add_argument("--limit", type=int, help="evaluate on the first so many pictures only")
    parser.add_argument("--no-times", action="store_true")
    return parser.parse_args()


def written(
    model: str, folder: Path, source: WiderFace, asked: argparse.Namespace
) -> dict[str, Path]:
    """Write the files of one model, those that are not there, and return them by name."""
    network: Any = random_resnet() if model == RESNET else zoo.load(model)
    is_cascade = model.startswith("mtcnn")
    # ONNX Runtime's float file is what each of eight bits is made from.
    first = folder / ("float-onnxruntime" if is_cascade else "float-onnxruntime.onnx")
    files = {}
    for runtime in dict.fromkeys(["onnxruntime", *asked.runtimes]):
        suffix = "" if is_cascade else SUFFIXES[runtime]
        float_file = folder / f"float-{runtime}{suffix}"
        if not float_file.exists():
            write_float(network, folder, FORMS[runtime], name=float_file.stem)
        files[float_file.stem] = float_file
        path = folder / f"int8-{runtime}{suffix}"
        if runtime not in asked.runtimes:
            continue
        if not path.exists():
            settings = Quantization(
                runtime=runtime, keep=tuple(asked.keep.split(",")), sqnr_db=asked.sqnr
            )
            started = time.process_time()
            found = quantize(first, path, settings, spread(source, "train", asked.pictures))
            took = time.process_time() - started
            (folder / f"{path.stem}.json").write_text(found.model_dump_json(indent=1))
            ways = [(n.by, n.ranges, n.equalised, n.corrected, n.kept) for n in found.networks]
            print(model, runtime, found.explain(), ways, f"{took:.0f} s", flush=True)
        files[path.stem] = path
    return files


def random_resnet() -> Any:
    """Return a ResNet18 of random weights for 37 classes, for its time."""
    network: Any = build(classifier("resnet18", [f"class {i}" for i in range(37)]), seed=0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            # Those of a fresh network are zero behind residual branches, which then fold away.
            torch.nn.init.uniform_(layer.weight, 0.5, 1.0)
    return network


def evaluated(name: str, path: Path, source: WiderFace, limit: int | None) -> dict[str, Any]:
    """Return a file's bytes and average precision on the validation pictures."""
    known = path.parent / f"ap-{name}{f'-{limit}' if limit else ''}.json"
    if not known.exists():
        pictures = source.pictures("val")[:limit]
        result = evaluate(
            load(path, threads=1), pictures, truth_of(pictures, source.folder()), resamples=0
        )
        points = [round(100 * (one.average_precision or 0), 2) for one in result.subsets]
        size = bytes_of(path) if path.is_dir() else model_bytes(path)
        known.write_text(json.dumps({"file": name, "bytes": size, "ap": points}))
    found: dict[str, Any] = json.loads(known.read_text())
    return found


def timed(files: dict[str, Path], source: WiderFace) -> dict[str, Any]:
    """Return the milliseconds of each file for a whole detection, in turns."""
    picture = next(iter(spread(source, "val", 1)))[1]
    paths: Sequence[Path] = list(files.values())
    times = detection_ms(paths, picture, rounds=7, runs=4)
    shown = {name: round(ms, 2) for name, ms in zip(files, times, strict=True)}
    return {"ms": shown, "picture": picture.shape[:2], "load": round(os.getloadavg()[0], 1)}


if __name__ == "__main__":
    main()
