"""MeasureLatency: the step that measures what the model costs on this machine."""

from typing import Literal

from pydantic import Field

from slimface.bench.latency import benchmark
from slimface.core.value import Value
from slimface.export.onnx import Onnx
from slimface.model.checkpoint import save
from slimface.model.detector import Detector
from slimface.step import Context

Runtime = Literal["torch", "onnxruntime"]


class MeasureLatency(Value):
    """Measure the model in each runtime; the model goes on as it is."""

    kind: Literal["benchmark"] = "benchmark"
    runtimes: tuple[Runtime, ...] = ("torch", "onnxruntime")
    sizes: tuple[tuple[int, int], ...] = ((480, 640),)
    """Heights and widths of the input in pixels."""

    threads: tuple[int, ...] = (1,)
    rounds: int = Field(default=5, gt=0)
    """How often each contestant gets its turn."""

    runs: int = Field(default=20, gt=0)
    """Detections that count each time."""

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Record one benchmark for each size, runtime and number of threads."""
        files = {
            "torch": context.folder / f"{detector.spec.name}.safetensors",
            "onnxruntime": context.folder / f"{detector.spec.name}.onnx",
        }
        try:
            if "torch" in self.runtimes:
                save(detector, files["torch"])
            if "onnxruntime" in self.runtimes:
                height, width = self.sizes[0]
                Onnx(height=height, width=width).write(detector, files["onnxruntime"])
            for record in benchmark(
                [files[runtime] for runtime in self.runtimes],
                sizes=self.sizes,
                threads=self.threads,
                rounds=self.rounds,
                runs=self.runs,
                track=context.track,
            ):
                context.record("benchmark", record)
        finally:
            for file in files.values():
                file.unlink(missing_ok=True)
        return detector
