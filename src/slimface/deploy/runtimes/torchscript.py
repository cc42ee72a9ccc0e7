"""TorchScript: ``.pt``, and ``.ptl`` of PyTorch Mobile. The one runtime here that needs torch."""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Answer
from slimface.deploy.runtimes.description import (
    SPEC_KEY,
    describe,
    does_not_run,
    first_line,
    not_installed,
    read_model,
    unreadable,
)
from slimface.errors import CheckpointError

_MOST_METADATA = 2**22


class TorchScriptNetwork:
    """A traced network run by torch. Its file holds code of TorchScript, never pickled Python.

    Raises:
        MissingError: The file is not there, or torch is not installed.
        CheckpointError: The file is damaged, is a pickle, or was not exported by slimface.
    """

    runtime = "torchscript"

    def __init__(
        self, path: str | Path, *, threads: int | None = None, content: bytes | None = None
    ) -> None:
        """Open a model; the arguments are those of ``OnnxNetwork``."""
        self.path = Path(path)
        content = content or read_model(self.path)
        self.metadata: Mapping[str, str] = _metadata(content, self.path)
        self.description = describe(self.metadata, self.path)
        try:
            import torch
        except ImportError as error:
            raise not_installed(self.path, "torch", "slimface[train]") from error
        self._torch: Any = torch
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._module = self._load(content)
        except RuntimeError as error:
            raise unreadable(self.path, "torch", error) from None

    def _load(self, content: bytes) -> Any:
        return self._torch.jit.load(BytesIO(content), map_location="cpu")

    def __call__(self, images: Floats) -> Answer:
        with self._torch.inference_mode():
            batch = self._torch.from_numpy(np.ascontiguousarray(images))
            try:
                found = self._module(batch)
            except RuntimeError as error:
                raise does_not_run(self.path, images.shape, error) from error
        return self.description.answer([tensor.numpy() for tensor in found])


class LegacyMobileNetwork(TorchScriptNetwork):
    """A file of PyTorch Mobile, run by the interpreter that torch still holds for it."""

    runtime = "torchmobile"

    def _load(self, content: bytes) -> Any:
        from torch.jit.mobile import _load_for_lite_interpreter

        read: Any = _load_for_lite_interpreter
        return read(BytesIO(content), map_location="cpu")


def _metadata(content: bytes, path: Path) -> dict[str, str]:
    """Read what the file says about itself, without giving it to torch."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            inside = {
                Path(entry.filename).name: entry
                for entry in archive.infolist()
                if "/extra/slimface." in entry.filename and entry.file_size < _MOST_METADATA
            }
            if SPEC_KEY not in inside:
                raise CheckpointError(
                    f"{path} is no TorchScript that slimface exported. It may be a pickle, whose "
                    "opening could run any code.\nPublished weights are opened by their name "
                    "(slimface zoo); export others with: slimface export MODEL --format torchscript"
                )
            return {name: archive.read(entry).decode() for name, entry in inside.items()}
    except (zipfile.BadZipFile, EOFError, OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: not a TorchScript file ({first_line(error)}).\n"
            "It is damaged, cut off or a pickle of old, which is not opened; export it again."
        ) from None
