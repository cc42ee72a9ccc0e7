"""ExecuTorch: ``.pte``. Its Python package needs torch; on phones the file runs without."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Answer
from slimface.deploy.runtimes.description import (
    does_not_run,
    not_installed,
    read_model,
    read_sidecar,
    unreadable,
)


class ExecuTorchNetwork:
    """A network run by ExecuTorch, picture by picture; it chooses its threads itself.

    Raises:
        MissingError: The file is not there, or executorch is not installed.
        CheckpointError: The file is damaged, or was not exported by slimface.
    """

    runtime = "executorch"

    def __init__(
        self, path: str | Path, *, threads: int | None = None, content: bytes | None = None
    ) -> None:
        """Open a model; the arguments are those of ``OnnxNetwork``."""
        self.path = Path(path)
        content = content or read_model(self.path)
        self.description, _ = read_sidecar(self.path, content)
        self.metadata = self.description.metadata
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

    def __call__(self, images: Floats) -> Answer:
        answers = [self._one(image[None]) for image in images]
        joined = [np.concatenate(tensors) for tensors in zip(*answers, strict=True)]
        return self.description.answer(joined)

    def _one(self, image: Floats) -> list[Floats]:
        with self._lock:
            try:
                found = self._method.execute([self._tensor(np.ascontiguousarray(image))])
            except RuntimeError as error:
                raise does_not_run(self.path, image.shape, error) from error
            # The tensors lie in the program's own memory.
            return [tensor.numpy().copy() for tensor in found]
