"""A whole detect call on 640x480: pre- and postprocessing, growth over 10,000 calls, the start.

    OMP_NUM_THREADS=1 python benchmarks/detect_call.py FILE.onnx [FILE.xml …] --calls 10000

The picture is the drawn scene of ``slimface benchmark``. Times are of the wall; for one thread the
time of the processor stands beside them, which other work on the machine touches less. What grows
is told by the resident memory of the process and by what Python itself holds, at each tenth of the
calls; the first tenth fills the buffers and does not count.
"""

import argparse
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from slimface.bench.latency import drawn_scene
from slimface.bench.machine import load_average, this_machine
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.pixels import limit_threads, resized
from slimface.loading import load

START = """
import time
clock = time.perf_counter()
import numpy as np
from slimface.loading import load
load({path!r}, threads=1).detect(np.zeros((480, 640, 3), np.uint8))
print(time.perf_counter() - clock, time.process_time())
"""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def parts(pipeline: Pipeline, picture: np.ndarray, calls: int) -> None:
    timings = [pipeline.detect_timed(picture)[1] for _ in range(calls)][calls // 10 :]
    columns = np.array([[t.resize_ms, t.network_ms, t.decode_ms] for t in timings])
    outside = columns[:, 0] + columns[:, 2]
    low, middle, high = np.percentile(outside, (10, 50, 90))
    print(
        f"  preprocessing {np.median(columns[:, 0]):.2f}, network {np.median(columns[:, 1]):.2f}, "
        f"postprocessing {np.median(columns[:, 2]):.2f} ms (medians); pre- and postprocessing "
        f"{middle:.2f} ms (p10 {low:.2f}, p90 {high:.2f})"
    )


def processor_ms(pipeline: Pipeline, picture: np.ndarray, calls: int) -> None:
    """Processor time of the whole call, less that of the network on the same input."""
    images = pipeline.prepare([picture])
    whole, network = [], []
    for _ in range(calls):
        start = time.process_time()
        pipeline.detect(picture)
        middle = time.process_time()
        pipeline.network(images)
        whole.append(middle - start)
        network.append(time.process_time() - middle)
    both = 1e3 * np.median([whole, network], axis=1)
    print(f"  of the processor: whole {both[0]:.2f}, network {both[1]:.2f} ms, the rest "
          f"{both[0] - both[1]:.2f} ms")  # fmt: skip


def growth(pipeline: Pipeline, picture: np.ndarray, calls: int) -> None:
    tracemalloc.start()
    held = []
    for _ in range(10):
        for _ in range(calls // 10):
            pipeline.detect(picture)
        held.append((resident_bytes(), tracemalloc.get_traced_memory()[0]))
    tracemalloc.stop()
    first, last = held[0], held[-1]
    print(
        f"  {calls:,} calls: resident {first[0] / 1e6:.2f} MB after a tenth, "
        f"{last[0] / 1e6:.2f} MB at the end ({(last[0] - first[0]) / 1e3:+.0f} kB); held by Python "
        f"{(last[1] - first[1]) / 1e3:+.1f} kB"
    )


def start(path: Path, times: int = 5) -> None:
    words = [sys.executable, "-c", START.format(path=str(path))]
    seconds = []
    for _ in range(times):
        done = subprocess.run(words, check=True, capture_output=True)
        seconds.append([float(part) for part in done.stdout.split()])
    wall, processor = np.median(seconds, axis=0)
    print(
        f"  from a bare interpreter to the first faces: {wall:.2f} s; of the processor, "
        f"with the start of Python, {processor:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument(
        "--shrink", type=int, default=1, help="divide the sides by this for --calls"
    )
    options = parser.parse_args()
    limit_threads(1)
    picture = drawn_scene()
    for path in options.models:
        pipeline = load(path, threads=1)
        print(f"{path.name}, {pipeline.runtime}, {len(pipeline.detect(picture))} faces")
        parts(pipeline, picture, 200)
        processor_ms(pipeline, picture, 100)
        start(path)
        if options.calls:
            sides = (480 // options.shrink, 640 // options.shrink)
            growth(pipeline, resized(picture, *sides), options.calls)
    machine = this_machine()
    print(f"{machine.processor}, 1 thread, load average {load_average()} of {machine.cores} cores")


if __name__ == "__main__":
    main()
