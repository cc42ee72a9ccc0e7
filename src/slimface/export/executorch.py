"""ExecuTorch: one file (``.pte``) for phones, with XNNPACK for what it can run."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from slimface.errors import ParityError
from slimface.export.form import Fixed, write_sidecar
from slimface.model.detector import Detector

log = logging.getLogger(__name__)


class ExecuTorch(Fixed):
    """Write a detector for ExecuTorch: one picture of one size, memory planned beforehand."""

    kind: Literal["executorch"] = "executorch"
    precision: Literal["float32"] = "float32"

    suffix: ClassVar[str] = ".pte"
    extra: ClassVar[str] = "executorch"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``: ``path`` and its sidecar."""
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise self.missing(error) from error
        graph = self.graph(detector)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                program = torch.export.export(graph, (self.example(detector),))
                program = program.run_decompositions({torch.ops.aten.prelu.default: _without_maps})
                lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
                content = lowered.to_executorch().buffer
            except (RuntimeError, NotImplementedError) as error:
                raise ParityError(
                    f"ExecuTorch cannot express the model: {error}\n"
                    "Export it to another format, or replace the operation."
                ) from error
        path.write_bytes(content)
        write_sidecar(path, self.metadata(detector, provenance, executorch=_version()))


def _without_maps(x: Tensor, slope: Tensor) -> Any:
    """Spell PReLU out behind dense layers: XNNPACK's takes maps of height and width alone."""
    if x.ndim != 2:
        return NotImplemented
    return x.clamp(min=0) + slope * x.clamp(max=0)


def _version() -> str:
    from importlib.metadata import version

    return version("executorch")
