"""Eight bits beside 32: average precision, bytes and milliseconds, each file in its own runtime.

    python benchmarks/int8.py --data ../shared/data/wider --out /tmp/int8 eresfd ...

For each model a float ONNX file, a QDQ file for ONNX Runtime and one by NNCF for OpenVINO are
written and evaluated on the validation pictures, and timed in turns with one thread (time of the
processor; the load of the machine is printed). What is in --out is not made again.
"""

import argparse
import json
import os
from pathlib import Path

from slimface.bench.side_by_side import detection_ms
from slimface.compress.quantize.export import spread, write_float
from slimface.compress.quantize.ptq import SUFFIXES, model_bytes, quantize
from slimface.compress.quantize.settings import Quantization
from slimface.data.source import WiderFace
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.files import bytes_of
from slimface.loading import load
from slimface.model import zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runtimes", nargs="*", default=["onnxruntime", "openvino"])
    parser.add_argument("--keep", default="auto")
    parser.add_argument("--sqnr", type=float, default=12.0)
    parser.add_argument("--pictures", type=int, default=32)
    asked = parser.parse_args()
    source = WiderFace(root=asked.data)
    pictures = source.pictures("val")
    truth = truth_of(pictures, source.folder())
    for model in asked.models:
        folder = asked.out / model
        folder.mkdir(parents=True, exist_ok=True)
        is_cascade = model.startswith("mtcnn")
        float_file = folder / ("float" if is_cascade else "float.onnx")
        if not float_file.exists():
            write_float(zoo.load(model), folder)
        files = {"float": float_file}
        for runtime in asked.runtimes:
            path = folder / f"{runtime}{'' if is_cascade else SUFFIXES[runtime]}"
            settings = Quantization(
                runtime=runtime, keep=tuple(asked.keep.split(",")), sqnr_db=asked.sqnr
            )
            if not path.exists():
                seen = spread(source, "train", asked.pictures)
                found = quantize(float_file, path, settings, seen)
                (folder / f"{runtime}.json").write_text(found.model_dump_json(indent=1))
                print(model, runtime, found.explain(), [one.kept for one in found.networks])
            files[runtime] = path
        for name, path in files.items():
            result = evaluate(
                load(path, threads=1), pictures, truth, resamples=0, folder=folder / f"d-{name}"
            )
            points = [round(100 * (one.average_precision or 0), 2) for one in result.subsets]
            size = bytes_of(path) if path.is_dir() else model_bytes(path)
            print(json.dumps({"model": model, "file": name, "bytes": size, "ap": points}))
        picture = next(iter(spread(source, "val", 1)))[1]
        times = detection_ms(list(files.values()), picture, rounds=7, runs=4)
        shown = {name: round(ms, 2) for name, ms in zip(files, times, strict=True)}
        print(json.dumps({"model": model, "ms": shown, "load": os.getloadavg()[0]}), flush=True)


if __name__ == "__main__":
    main()
