"""``slimface benchmark``: milliseconds, memory and size of models on this machine."""

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.size import read_size
from slimface.files import write_text

if TYPE_CHECKING:
    from slimface.core.benchmark import Benchmark


def benchmark(
    models: Annotated[
        list[str], typer.Argument(help="Names of the zoo, checkpoints, exported files.")
    ],
    size: Annotated[list[str] | None, typer.Option(help="WIDTHxHEIGHT; several are fine.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads; several are fine.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each model gets its turn.")] = 5,
    runs: Annotated[int, typer.Option(help="Detections that count each time.")] = 20,
    picture: Annotated[
        Path | None, typer.Option(help="Detect on this picture.  [default: a drawn scene]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the records as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Measure whole detections with MODELS, in turns, each in a process of its own."""
    sizes = [read_size(text) for text in size or ["640x480"]]
    from slimface.bench.latency import benchmark as measure
    from slimface.deploy.media import read_picture

    records: list[Benchmark] = []
    try:
        for record in measure(
            models,
            sizes=sizes,
            threads=threads or [1],
            rounds=rounds,
            runs=runs,
            picture=read_picture(picture) if picture else None,
            track=track,
        ):
            records.append(record)
            if out is not None:
                _write(records, out)
    finally:
        # After Ctrl-C or a crash as well: what was measured is worth having.
        if json:
            print_json([record.model_dump(mode="json") for record in records])
        elif records:
            show(records)
        if records and out is not None:
            diary.print(f"Records: {out}", markup=False)


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
