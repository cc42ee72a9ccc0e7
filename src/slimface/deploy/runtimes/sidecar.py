"""What the runtimes have in common whose files have their description beside them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Answer
from slimface.deploy.runtimes.description import read_model, read_sidecar


class SidecarNetwork(ABC):
    """A network in a file that says about itself what stands in ``FILE.spec.json``.

    Raises:
        MissingError: A file of the model is not there, or the runtime is not installed.
        CheckpointError: A file is damaged, or was not exported by slimface.
    """

    runtime: ClassVar[str]

    def __init__(
        self, path: str | Path, *, threads: int | None = None, content: bytes | None = None
    ) -> None:
        """Open a model; the arguments are those of ``OnnxNetwork``."""
        self.path = Path(path)
        content = content or read_model(self.path)
        # Native code may trust what it reads and end the process: the digests are checked before.
        self.description, files = read_sidecar(self.path, content)
        self.metadata = self.description.metadata
        self._open(content, files, threads)

    @abstractmethod
    def _open(self, content: bytes, files: Mapping[str, bytes], threads: int | None) -> None:
        """Hand the content of the file, and of those that belong to it, to the runtime."""

    @abstractmethod
    def __call__(self, images: Floats) -> Answer: ...


class OneByOneNetwork(SidecarNetwork):
    """One that takes a single picture."""

    def __call__(self, images: Floats) -> Answer:
        answers = [self._one(image[None]) for image in images]
        joined = [np.concatenate(tensors) for tensors in zip(*answers, strict=True)]
        return self.description.answer(joined)

    @abstractmethod
    def _one(self, image: Floats) -> list[Floats]:
        """Return the outputs for a batch of one."""
