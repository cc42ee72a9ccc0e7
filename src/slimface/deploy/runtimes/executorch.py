"""ExecuTorch: ``.pte``. Its Python package needs torch; on phones the file runs without."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.runtimes.description import does_not_run, not_installed, unreadable
from slimface.deploy.runtimes.sidecar import OneByOneNetwork


class ExecuTorchNetwork(OneByOneNetwork):
    """A network run by ExecuTorch, picture by picture; it chooses its threads itself.

    Raises:
        MissingError: The file is not there, or executorch is not installed.
        CheckpointError: The file is damaged, or was not exported by slimface.
    """

    runtime = "executorch"

    def _open(self, content: bytes, files: Mapping[str, bytes], threads: int | None) -> None:
        try:
            import torch
            from executorch.runtime import Runtime
        except ImportError as error:
            raise not_installed(self.path, str(error.name), "slimface[executorch]") from error
        self._tensor: Any = torch.from_numpy
        try:
            # The program must stay alive as long as its method.
            self._program = Runtime.get().load_program(content)
            self._method: Any = self._program.load_method("forward")
        except RuntimeError as error:
            raise unreadable(self.path, "ExecuTorch", error) from None
        self._lock = threading.Lock()

    def _one(self, image: Floats) -> list[Floats]:
        with self._lock:
            try:
                found = self._method.execute([self._tensor(np.ascontiguousarray(image))])
            except RuntimeError as error:
                raise does_not_run(self.path, image.shape, error) from error
            # The tensors lie in the program's own memory.
            return [tensor.numpy().copy() for tensor in found]
