"""TorchScript: one file for libtorch (``.pt``), or the older one for PyTorch Mobile (``.ptl``).

torch announces that TorchScript will be removed. The mobile runtime has been given up already in
favour of ExecuTorch; its file is here because published applications load it.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from slimface.export.form import Form
from slimface.model.detector import Detector

log = logging.getLogger(__name__)


class TorchScript(Form):
    """Write a detector as a traced module with its spec inside."""

    kind: Literal["torchscript"] = "torchscript"
    precision: Literal["float32"] = "float32"

    suffix: ClassVar[str] = ".pt"
    extra: ClassVar[str] = "train"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``."""
        graph = self.graph(detector)
        said = self.metadata(detector, provenance)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            trace: Any = torch.jit.trace
            traced = trace(graph, self.example(detector), check_trace=False)
            self._save(torch.jit.freeze(traced.eval()), path, said)

    def _save(self, module: Any, path: Path, said: Mapping[str, str]) -> None:
        torch.jit.save(module, path, _extra_files=dict(said))


class LegacyMobile(TorchScript):
    """Write a file for the runtime of PyTorch Mobile, which is no longer supported."""

    kind: Literal["torchmobile"] = "torchmobile"  # type: ignore[assignment]  # another name
    suffix: ClassVar[str] = ".ptl"

    def _save(self, module: Any, path: Path, said: Mapping[str, str]) -> None:
        log.warning(
            "PyTorch Mobile is no longer supported and its files are not optimised; "
            "new applications use --format executorch."
        )
        module._save_for_lite_interpreter(str(path), _extra_files=dict(said))
