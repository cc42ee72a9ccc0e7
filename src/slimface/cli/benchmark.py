"""``slimface benchmark``: milliseconds, memory, size and accuracy of models on this machine."""

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.matrix import measure_matrix
from slimface.cli.size import read_size
from slimface.errors import UsageError
from slimface.files import write_text

if TYPE_CHECKING:
    from slimface.core.benchmark import Benchmark


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Names of the zoo, checkpoints, exported files, ONNX files of YuNet, Ultra-Light."
        ),
    ],
    runtimes: Annotated[
        str,
        typer.Option(
            help="Export and compare in these: all, or some of torch, onnxruntime, openvino, ncnn, "
            "executorch, litert, torchscript, torchmobile.  [default: models as they are]"
        ),
    ] = "",
    precisions: Annotated[
        str, typer.Option(help="float32,float16,int8: what the runtimes are given.")
    ] = "float32",
    size: Annotated[
        list[str] | None, typer.Option("--size", "--sizes", help="WIDTHxHEIGHT,…  [640x480]")
    ] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Threads: 1,2,…  [1]")] = None,
    rounds: Annotated[int, typer.Option(help="How often each model gets its turn.")] = 5,
    runs: Annotated[int, typer.Option(help="Detections that count each time.")] = 20,
    picture: Annotated[
        Path | None, typer.Option(help="Detect on this picture.  [default: a drawn scene]")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Score on the val split of this folder, or of 'drawn'.  [default: no AP]"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score on so many of its pictures, spread evenly.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keep exported files here.  [default: in SLIMFACE_HOME]")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write .json, .csv (one row a cell), .html (a page); several are fine."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Measure whole detections with MODELS, in turns, each in a process of its own.

    With --runtimes or --data, one table of every runtime, precision, size and number of threads.
    """
    asked: dict[str, Any] = {
        "sizes": [read_size(text) for text in _listed(size) or ["640x480"]],
        "threads": [_count(text) for text in _listed(threads) or ["1"]],
        "rounds": rounds,
        "runs": runs,
    }
    from slimface.deploy.media import read_picture

    seen = read_picture(picture) if picture else None
    places = out or []
    if runtimes or data is not None or any(place.suffix in (".csv", ".html") for place in places):
        asked |= {"precisions": _listed([precisions]), "cache": cache}
        asked["calibrate_on"] = data or "drawn"
        measure_matrix(
            models, runtimes, asked, picture=seen, data=data, limit=limit, out=places, as_json=json
        )
        return
    from slimface.bench.latency import benchmark as measure

    records: list[Benchmark] = []
    try:
        for record in measure(models, **asked, picture=seen, track=track):
            records.append(record)
            for place in places:
                _write(records, place)
    finally:
        # After Ctrl-C or a crash as well: what was measured is worth having.
        if json:
            print_json([record.model_dump(mode="json") for record in records])
        elif records:
            show(records)
        for place in places if records else ():
            diary.print(f"Records: {place}", markup=False)


def _listed(texts: Sequence[str] | None) -> list[str]:
    """Options may be repeated, or hold commas."""
    return [part.strip() for text in texts or () for part in text.split(",") if part.strip()]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--threads is '{text}'.\nWrite numbers from 1, such as 1,2.")
    return int(text)


def show(records: Sequence["Benchmark"]) -> None:
    """Print the records as two tables: time, and everything else."""
    inputs = [f"{r.width}x{r.height} {r.threads}t" for r in records]
    print_table(
        "Milliseconds of a whole detection",
        ["model", "input", "median", "p10-p90", "best", "pre+net+post"],
        [
            [
                r.model,
                place,
                f"{r.total.median_ms:.2f}",
                f"{r.total.p10_ms:.1f}-{r.total.p90_ms:.1f}",
                f"{r.total.best_round_ms:.2f}",
                f"{r.preprocess.median_ms:.2f}+{r.network.median_ms:.2f}"
                f"+{r.postprocess.median_ms:.2f}",
            ]
            for place, r in zip(inputs, records, strict=True)
        ],
    )
    print_table(
        "Parameters, MACs (M), file (kB), memory (MB), start (ms)",
        ["model", "runtime", "input", "params", "MACs", "file", "memory", "start"],
        [
            [
                r.model,
                r.runtime,
                place,
                "?" if r.parameters is None else f"{r.parameters:,}",
                "?" if r.macs is None else f"{r.macs / 1e6:.1f}",
                "" if r.file_bytes is None else f"{r.file_bytes / 1e3:.1f}",
                f"{r.memory_bytes / 1e6:.0f}",
                f"{r.open_ms + r.first_ms:.0f}",
            ]
            for place, r in zip(inputs, records, strict=True)
        ],
    )
    last = records[-1]
    load = "?" if last.load_average is None else f"{last.load_average:g}"
    diary.print(
        f"{last.machine.processor}, {last.machine.cores} cores, load average {load}, "
        f"{last.machine.system}; {last.faces} faces on the picture; {last.runs} runs in "
        f"{last.rounds} rounds; best: the median of the best round.",
        markup=False,
    )
    if last.load_average is not None and last.load_average > last.machine.cores + 1:
        diary.print("The machine was busy with other work: these durations are too long.")


def _write(records: Sequence["Benchmark"], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [record.model_dump(mode="json") for record in records]
    write_text(out, json_module.dumps(rows, indent=1) + "\n")
