import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest

from slimface.bench.latency import benchmark
from slimface.core.benchmark import Benchmark
from slimface.errors import CheckpointError, MissingError, UsageError
from slimface.export.onnx import Onnx
from slimface.model.build import build
from slimface.model.checkpoint import fingerprint, save
from slimface.model.detector import Detector
from slimface.model.eresfd import naver
from slimface.model.profile import profile

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(naver("tiny", width=4), seed=0).eval()


@pytest.fixture(scope="module")
def onnx_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.onnx"
    Onnx(height=48, width=64).write(detector, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.safetensors"
    save(detector, path)
    return path


@pytest.fixture(scope="module")
def records(onnx_file: Path, checkpoint: Path) -> list[Benchmark]:
    """Both models at one size, and the file alone at two: starting torch takes seconds."""
    options = {"rounds": 2, "runs": 3, "picture": PICTURE}
    return [
        *benchmark([onnx_file, checkpoint], sizes=[(48, 64)], **options),
        *benchmark([onnx_file], sizes=[(32, 32), (48, 64)], threads=[1, 2], **options),
    ]


def test_there_is_a_record_for_each_size_model_and_threads_in_order(
    records: list[Benchmark],
) -> None:
    assert [(r.model, r.runtime, r.height, r.width, r.threads) for r in records] == [
        ("tiny.onnx", "onnxruntime", 48, 64, 1),
        ("tiny.safetensors", "torch", 48, 64, 1),
        ("tiny.onnx", "onnxruntime", 32, 32, 1),
        ("tiny.onnx", "onnxruntime", 32, 32, 2),
        ("tiny.onnx", "onnxruntime", 48, 64, 1),
        ("tiny.onnx", "onnxruntime", 48, 64, 2),
    ]


def test_spreads_are_in_order_and_parts_sum_to_the_whole(records: list[Benchmark]) -> None:
    for record in records:
        for part in (record.total, record.preprocess, record.network, record.postprocess):
            assert 0 < part.least_ms <= part.p10_ms <= part.median_ms <= part.p90_ms
            assert part.least_ms <= part.best_round_ms <= part.p90_ms
        least = record.preprocess.least_ms + record.network.least_ms + record.postprocess.least_ms
        assert record.total.least_ms >= least * 0.999
        assert (record.rounds, record.runs) == (2, 6)


def test_the_cost_is_that_of_the_model(
    records: list[Benchmark], detector: Detector, onnx_file: Path
) -> None:
    first, second, third, *_ = records
    assert first.parameters == second.parameters == profile(detector, 48, 64).parameters
    assert first.macs == second.macs == profile(detector, 48, 64).macs
    assert third.macs is None  # the file states its MACs for the size it was traced at
    assert first.file_bytes == onnx_file.stat().st_size
    assert second.model_fingerprint == fingerprint(detector)


def test_torch_takes_more_memory_than_onnx_runtime(records: list[Benchmark]) -> None:
    assert 2**20 < records[0].memory_bytes < records[1].memory_bytes


def test_a_record_survives_json(records: list[Benchmark]) -> None:
    text = records[0].model_dump_json()
    assert Benchmark.model_validate_json(text) == records[0]


def test_the_keys_of_a_record_on_disk_do_not_change(records: list[Benchmark]) -> None:
    """Whoever changes these breaks records people have kept: raise the version and convert."""
    data = records[0].model_dump(mode="json")
    assert sorted(data) == [
        "command", "date", "faces", "file_bytes", "first_ms", "height", "kind", "load_average",
        "machine", "macs", "memory_bytes", "model", "model_fingerprint", "network", "open_ms",
        "parameters", "postprocess", "preprocess", "rounds", "runs", "runtime", "threads", "total",
        "version", "width",
    ]  # fmt: skip
    assert sorted(data["total"]) == ["best_round_ms", "least_ms", "median_ms", "p10_ms", "p90_ms"]


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingError, match=r"nowhere/x\.onnx"):
        next(benchmark(["nowhere/x.onnx"]))


def test_what_the_worker_says_about_a_broken_file_arrives(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"this is no model")
    with pytest.raises(CheckpointError, match="damaged"):
        next(benchmark([path], picture=PICTURE))


@pytest.mark.parametrize("wrong", [{"threads": [0]}, {"rounds": 0}, {"sizes": [(0, 64)]}])
def test_numbers_below_one_are_refused(onnx_file: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="count from 1"):
        next(benchmark([onnx_file], picture=PICTURE, **wrong))  # type: ignore[arg-type]


def _workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "slimface.bench.worker" in process.cmdline():
                found.append(process)
    return found


def test_a_runtime_that_crashes_is_an_error_and_not_the_end(onnx_file: Path) -> None:
    def crash(rounds: Iterable[int], description: str) -> Iterable[int]:
        yield 0
        os.kill(_workers()[0].pid, signal.SIGSEGV)
        yield 1

    with pytest.raises(CheckpointError, match="ended with code -11"):
        list(benchmark([onnx_file], picture=PICTURE, runs=1, track=crash))
    assert not _workers()


def test_leaving_early_keeps_what_is_done_and_ends_the_workers(onnx_file: Path) -> None:
    running = benchmark([onnx_file], sizes=[(48, 64), (32, 32)], picture=PICTURE, rounds=1, runs=1)
    first = next(running)
    running.close()
    assert (first.height, first.width) == (48, 64)
    assert not _workers()
