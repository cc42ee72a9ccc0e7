"""OpenVINO: ``.xml`` with its weights in ``.bin``."""

import threading
from collections.abc import Mapping
from typing import Any

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Answer
from slimface.deploy.runtimes.description import does_not_run, not_installed, unreadable
from slimface.deploy.runtimes.sidecar import SidecarNetwork


class OpenVinoNetwork(SidecarNetwork):
    """A network run by OpenVINO on the processor, in float32.

    Raises:
        MissingError: A file of the model is not there, or openvino is not installed.
        CheckpointError: A file is damaged, or was not exported by slimface.
    """

    runtime = "openvino"

    def _open(self, content: bytes, files: Mapping[str, bytes], threads: int | None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise not_installed(self.path, "openvino", "slimface[openvino]") from error
        # bfloat16, which some processors would choose on their own, moves boxes.
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            hints["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(model=content, weights=files.get(".bin", b""))
            self._compiled = core.compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise unreadable(self.path, "OpenVINO", error) from None
        self._requests = threading.local()

    def __call__(self, images: Floats) -> Answer:
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        try:
            found = request.infer([images], share_inputs=True)
        except (RuntimeError, ValueError) as error:
            raise does_not_run(self.path, images.shape, error) from error
        return self.description.answer([found[name] for name in self.description.names])
