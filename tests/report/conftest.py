"""A run folder made by hand: realistic records, a drawn picture, nothing that needs torch."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimface.core.benchmark import Benchmark, Machine, Spread
from slimface.core.faces import Faces
from slimface.core.record import Evaluation, Original, PrecisionRecall, Protocol, SubsetResult
from slimface.report.pictures import save_example

RECIPE = """name: eresfd-fpgm-30
about: Published weights, a third of the channels out, tuned on WIDER FACE.
model: eresfd
pretrained: true
steps:
- kind: evaluate
- kind: prune
"""

AP = {"before": (0.833, 0.808, 0.677), "after": (0.829, 0.797, 0.661)}
HEIGHTS = ("8-16 px", "16-32 px", "32-64 px", "64-128 px", "128-256 px", "256+ px")
FACES = (612, 540, 401, 233, 122, 48)


def curve(ap: float, seed: int) -> PrecisionRecall:
    rng = np.random.default_rng(seed)
    recall = np.linspace(0, ap + 0.06, 400)
    drop = (recall / recall[-1]) ** 7
    noise = np.abs(rng.normal(0, 0.002, 400)) * recall
    precision = np.clip(1 - 0.55 * drop - 0.02 * recall - noise, 0, 1)
    return PrecisionRecall(recall=tuple(recall), precision=tuple(precision))


def evaluation(side: str, **protocol: Any) -> dict[str, Any]:
    """An evaluation as it stands in a record."""
    rng = np.random.default_rng(7)
    draws = rng.normal(0, 0.012, 200)
    pair = np.random.default_rng(8 if side == "after" else 9)
    subsets = []
    for i, (name, ap) in enumerate(zip(("easy", "medium", "hard"), AP[side], strict=True)):
        samples = np.clip(ap + draws + pair.normal(0, 0.004, 200), 0, 1)
        low, high = np.percentile(samples, [2.5, 97.5])
        subsets.append(
            SubsetResult(
                name=name,
                average_precision=ap,
                faces=(402, 760, 1844)[i],
                low=low,
                high=high,
                resampled=tuple(samples.round(5)),
                curve=curve(ap, i),
            )
        )
    drop = 0 if side == "before" else 0.02
    heights = tuple(
        SubsetResult(
            name=name,
            average_precision=(0.31, 0.62, 0.81, 0.9, 0.93, 0.9)[i] - drop * (2 - i / 3),
            faces=FACES[i],
            low=(0.26, 0.58, 0.77, 0.86, 0.88, 0.78)[i] - drop,
            high=(0.36, 0.66, 0.85, 0.94, 0.97, 0.97)[i] - drop,
        )
        for i, name in enumerate(HEIGHTS)
    )
    rule: dict[str, Any] = {
        "evaluator": "widerface-1",
        "truth": "wider-val",
        "truth_sha256": "3f" * 32,
        "pictures": 120,
        "pictures_in_truth": 3226,
        "input": Original(max_pixels=1700 * 1200),
        "score_floor": 0.05,
        "nms_overlap": 0.3,
        "pre_nms": 5000,
        "cap": 750,
    }
    return Evaluation(
        model="eresfd",
        model_fingerprint="ab" * 32,
        protocol=Protocol(**rule | protocol),
        subsets=tuple(subsets),
        by_height=heights,
        detections=41_217,
        seconds=310.0,
        date=datetime(2026, 11, 22, 4, 0, tzinfo=UTC),
        version="0.1.0",
    ).model_dump(mode="json")


def benchmark(side: str) -> list[dict[str, Any]]:
    """Three benchmarks as they stand in records."""
    factor = 1.0 if side == "before" else 0.68

    def spread(ms: float) -> Spread:
        return Spread(
            median_ms=ms,
            p10_ms=ms * 0.97,
            p90_ms=ms * 1.12,
            least_ms=ms * 0.95,
            best_round_ms=ms * 0.99,
        )

    return [
        Benchmark(
            model="eresfd",
            model_fingerprint="cd" * 32,
            runtime=runtime,
            height=480,
            width=640,
            threads=threads,
            total=spread(1.1 + network * factor + 2.3),
            preprocess=spread(1.1),
            network=spread(network * factor),
            postprocess=spread(2.3),
            rounds=5,
            runs=100,
            faces=7,
            open_ms=180.0,
            first_ms=52.0,
            memory_bytes=int(96e6 * (0.8 + 0.2 * factor)),
            file_bytes=431_000 if side == "before" else 246_000,
            load_average=0.4,
            machine=Machine(
                processor="Example CPU",
                cores=2,
                memory_bytes=8 * 10**9,
                system="Linux 6.1 x86_64",
                governor=None,
                versions={"python": "3.11.2", "onnxruntime": "1.27.0"},
            ),
            date=datetime(2026, 11, 22, 4, 0, tzinfo=UTC),
            version="0.1.0",
        ).model_dump(mode="json")
        for runtime, threads, network in (
            ("onnxruntime", 1, 31.2),
            ("onnxruntime", 2, 18.9),
            ("torch", 1, 47.5),
        )
    ]


def prune() -> dict[str, Any]:
    sizes = [8, 16, 16, 32, 32, 16, 64, 64, 32, 64, 128, 64, 128, 32, 32, 64, 48, 24, 16, 8]
    groups: list[dict[str, Any]] = [
        {
            "name": f"stage{i // 4}.block{i % 4}.conv",
            "before": size,
            "after": size - round(size * 0.3),
            "layers": [f"stage{i // 4}.block{i % 4}.conv", f"stage{i // 4}.block{i % 4}.point"],
        }
        for i, size in enumerate(sizes)
    ]

    def profile(side: str, parameters: int, macs: int) -> dict[str, Any]:
        layers = [
            {"name": layer, "kind": "Conv2d", "output": [group[side], 60, 80]}
            for group in groups
            for layer in group["layers"]
        ]
        size = {"height": 480, "width": 640}
        return {"parameters": parameters, "macs": macs, "layers": layers, **size}

    return {
        "importance": "fpgm",
        "input": [480, 640],
        "before": profile("before", 92_208, 365_400_000),
        "after": profile("after", 49_871, 201_300_000),
        "groups": groups,
        "uncut": [{"name": "head.loc", "size": 4, "reason": "its outputs have a meaning each"}],
    }


def epochs(count: int = 8) -> Iterable[dict[str, Any]]:
    for i in range(1, count + 1):
        fall = np.exp(-i / 3)
        yield {
            "epoch": i,
            "epochs": count,
            "loss": 2.1 + 2.4 * fall,
            "held_out_loss": 2.3 + 2.2 * fall + 0.03 * np.sin(i * 2),
            "learning_rate": 1e-3,
            "parts": {"class": 1.3 + 1.5 * fall, "box": 0.8 + 0.9 * fall},
            "pictures": 1500,
            "seconds": 412.0,
        }


def export() -> dict[str, Any]:
    parity = {"faces": 412, "matched": 412, "extra": 0, "largest_score_drift": 1.2e-6}
    return {"file": "model.onnx", "format": "onnx", "bytes": 246_000, "parity": parity}


def step(number: int, kind: str, parent: int, **settings: Any) -> dict[str, Any]:
    return {
        "step": number,
        "kind": kind,
        "settings": {"kind": kind, **settings},
        "parent": fingerprint(parent),
        "fingerprint": fingerprint(number),
        "seconds": 12.5 * (number + 1) ** 3,
        "command": "slimface run recipes/eresfd-fpgm-30.yaml",
    }


def fingerprint(number: int) -> str:
    return f"{number * 2654435761 % 2**48:012x}" * 5


def lines(folder: Path) -> list[dict[str, Any]]:
    """All lines of the records of a complete run; ``folder`` gets the picture."""
    picture = np.full((360, 540, 3), (92, 112, 104), np.uint8)
    picture[:, ::45] = (120, 140, 130)
    boxes = np.asarray([[60, 80, 140, 190], [240, 60, 300, 140], [420, 210, 450, 250]], np.float32)
    found = Faces(boxes, np.asarray([0.97, 0.91, 0.62], np.float32))
    moved = found.select([0, 1]).moved(shift=(2, 1))
    example = save_example(folder, "parade/1_42", picture, before=found, after=moved)
    weights = {"name": "eresfd", "licence": "Apache-2.0", "origin": "clovaai/EResFD weights/"}
    start = {"slimface": "0.1.0", "torch": "2.14.1", "machine": "Linux x86_64", "cores": 2}
    table: list[tuple[int, str, str, Any]] = [
        (0, "start", "start", {**start, "weights": weights}),
        (1, "evaluate", "step", step(1, "evaluate", 0)),
        (1, "evaluate", "evaluation", evaluation("before")),
        (2, "benchmark", "step", step(2, "benchmark", 1)),
        *[(2, "benchmark", "benchmark", row) for row in benchmark("before")],
        (3, "prune", "step", step(3, "prune", 2, allocator={"kind": "uniform", "rate": 0.3})),
        (3, "prune", "prune", prune()),
        (4, "train", "step", step(4, "train", 3)),
        *[(4, "train", "epoch", record) for record in epochs()],
        (5, "export", "step", step(5, "export", 4)),
        (5, "export", "export", export()),
        (6, "evaluate", "step", step(6, "evaluate", 5)),
        (6, "evaluate", "evaluation", evaluation("after")),
        (7, "benchmark", "step", step(7, "benchmark", 6)),
        *[(7, "benchmark", "benchmark", row) for row in benchmark("after")],
        (7, "benchmark", "pictures", {"pictures": [example]}),
    ]
    return [
        {
            "step": number,
            "name": name,
            "kind": kind,
            "time": "2026-11-22T04:00:00+0000",
            "fingerprint": fingerprint(number),
            "record": record,
        }
        for number, name, kind, record in table
    ]


def write(folder: Path, records: Iterable[dict[str, Any]], *, recipe: str = RECIPE) -> Path:
    """Write a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "records.jsonl").write_text(text, encoding="utf-8")
    if recipe:
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A complete run."""
    return write(tmp_path / "run", lines(tmp_path / "run"))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """``make_run(keep)`` writes the complete run without the lines that ``keep`` refuses."""

    def make(
        keep: Callable[[dict[str, Any]], bool] = lambda line: True, *, recipe: str = RECIPE
    ) -> Path:
        folder = tmp_path / "run"
        return write(folder, filter(keep, lines(folder)), recipe=recipe)

    return make
