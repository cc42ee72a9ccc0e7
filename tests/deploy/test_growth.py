"""What thousands of calls leave behind."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np

from slimface.deploy.runtimes import open_exported


def test_no_call_leaves_memory_behind(tiny_onnx: Path) -> None:
    """``benchmarks/detect_call.py`` does the same with EResFD, 10,000 times."""
    pipeline = open_exported(tiny_onnx, threads=1)
    pictures = [np.full((*size, 3), 255, np.uint8) for size in ((48, 64), (64, 48), (33, 57))]

    def held_after(calls: int) -> int:
        for i in range(calls):
            assert len(pipeline.detect(pictures[i % len(pictures)]))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # Caches, and lists of free objects that the interpreter keeps at hand, fill at first.
        before = held_after(300)
        grown = held_after(600) - before
    finally:
        tracemalloc.stop()
    assert grown < 600 * 64, "less than the smallest array of each call may stay"
