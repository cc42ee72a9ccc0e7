"""LiteRT: ``.tflite``."""

import threading
from collections.abc import Mapping

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.runtimes.description import does_not_run, not_installed, unreadable
from slimface.deploy.runtimes.sidecar import OneByOneNetwork


class LiteRtNetwork(OneByOneNetwork):
    """A network run by LiteRT (XNNPACK) on the processor, picture by picture.

    Raises:
        MissingError: The file is not there, or ai-edge-litert is not installed.
        CheckpointError: The file is damaged, or was not exported by slimface.
    """

    runtime = "litert"

    def _open(self, content: bytes, files: Mapping[str, bytes], threads: int | None) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise not_installed(self.path, "ai-edge-litert", "slimface[litert]") from error
        try:
            self._model = Interpreter(model_content=content, num_threads=threads)
            self._model.allocate_tensors()
            signature = self._model.get_signature_list()["serving_default"]
        except (RuntimeError, ValueError, KeyError) as error:
            raise unreadable(self.path, "LiteRT", error) from None
        self._run = self._model.get_signature_runner("serving_default")
        [self._input] = signature["inputs"]
        # output_0, output_1, ...: the order of the list is not that of the tuple.
        self._outputs = sorted(signature["outputs"], key=lambda name: int(name.rpartition("_")[2]))
        self._lock = threading.Lock()

    def _one(self, image: Floats) -> list[Floats]:
        with self._lock:
            try:
                found = self._run(**{self._input: np.ascontiguousarray(image)})
            except (RuntimeError, ValueError) as error:
                raise does_not_run(self.path, image.shape, error) from error
            return [np.array(found[name]) for name in self._outputs]
