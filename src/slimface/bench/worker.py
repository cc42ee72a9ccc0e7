"""The process that runs one model while it is measured: ``python -m slimface.bench.worker``.

Each model gets a fresh one, so that its memory is its own, its runtime's threads disturb nobody,
and a crash is an error message instead of the end. Orders arrive as JSON lines on standard input,
answers leave as JSON lines on standard output:

    {"model": …, "threads": 1, "picture": "x.npy"}   ->  {"ready": {…}}
    {"repeat": 20}                                   ->  {"milliseconds": [[pre, net, post], …]}
    {"detect": "y.npy", "settings": {…}}             ->  {"faces": {…}}
    {"finish": true}                                 ->  {"memory_bytes": …}
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from slimface.core.faces import Faces
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.deploy.pixels import limit_threads
from slimface.errors import SlimfaceError

if TYPE_CHECKING:
    from slimface.deploy.classify import ClassPipeline


def main() -> None:
    """Answer orders until the input ends."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    try:
        _serve(sys.stdin, answers)
    except SlimfaceError as error:
        _answer(answers, {"error": type(error).__name__, "message": str(error)})


def _serve(orders: IO[str], answers: IO[str]) -> None:
    order = json.loads(orders.readline())
    limit_threads(order["threads"])
    picture = np.load(order["picture"], allow_pickle=False)
    before = peak_memory()
    start = time.perf_counter()
    from slimface.bench.rivals import open_contestant

    pipeline = open_contestant(order["model"], threads=order["threads"])
    opened = time.perf_counter()
    run = pipeline.detect_timed if isinstance(pipeline, Pipeline) else pipeline.classify_timed
    found = run(picture)[0]
    first = time.perf_counter()
    ready = {
        "name": pipeline.name,
        "runtime": pipeline.runtime,
        "precision": getattr(_description(pipeline), "precision", "float32"),
        "spec": pipeline.spec.model_dump_json(),
        "model_fingerprint": pipeline.fingerprint(),
        "faces": len(found) if isinstance(found, Faces) else 0,
        "open_ms": (opened - start) * 1e3,
        "first_ms": (first - opened) * 1e3,
    }
    _answer(answers, {"ready": ready})
    for line in orders:
        order = json.loads(line)
        if "finish" in order:
            memory = max(0, peak_memory() - before)
            _answer(answers, {"memory_bytes": memory, **_cost(pipeline, picture.shape[:2])})
            return
        if "detect" in order:
            _answer(answers, {"faces": _detect(pipeline, order)})
            continue
        times = []
        for _ in range(order["repeat"]):
            timing = run(picture)[1]
            times.append([timing.resize_ms, timing.network_ms, timing.decode_ms])
        _answer(answers, {"milliseconds": times})


def _detect(pipeline: "Pipeline | ClassPipeline", order: dict[str, Any]) -> dict[str, Any]:
    assert isinstance(pipeline, Pipeline)  # classifiers are never asked for faces
    picture = np.load(order["detect"], allow_pickle=False)
    found = pipeline.detect(picture, Settings(**order["settings"]))
    points = None if found.landmarks is None else found.landmarks.tolist()
    return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "landmarks": points}


def _description(pipeline: "Pipeline | ClassPipeline") -> Any:
    """What an exported file says about itself; a cascade's nets say the same."""
    network = getattr(pipeline.network, "onet", pipeline.network)
    return getattr(network, "description", None)


def _cost(pipeline: "Pipeline | ClassPipeline", size: tuple[int, int]) -> dict[str, int]:
    """Return parameters and MACs, counted or as the file states them; nothing if neither."""
    detector = getattr(pipeline.network, "detector", None)
    if detector is not None:
        from slimface.model.profile import profile

        counted = profile(detector, *size)
        return {"parameters": counted.parameters, "macs": counted.macs}
    from slimface.deploy.runtimes import PROVENANCE_KEY

    metadata = getattr(pipeline.network, "metadata", {})
    stated = json.loads(metadata.get(PROVENANCE_KEY, "{}")).get("cost", {})
    cost = {"parameters": stated["parameters"]} if "parameters" in stated else {}
    if (stated.get("height"), stated.get("width")) == size:
        cost["macs"] = stated["macs"]
    return cost


def peak_memory() -> int:
    """Return the most memory this process has had resident, in bytes."""
    try:
        # Not getrusage: Linux lets a process inherit the peak of the one that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _answer(answers: IO[str], data: dict[str, Any]) -> None:
    answers.write(json.dumps(data) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
