"""ncnn: a list of layers (``.ncnn.param``) and their weights (``.ncnn.bin``), converted by pnnx."""

import re
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from slimface.errors import ParityError, UsageError
from slimface.export.form import Form, write_sidecar
from slimface.export.graph import Graph, padded
from slimface.model.detector import Detector

_SECONDS = 600
"""The converter is given up after this time."""

_FOREIGN = re.compile(r"^(\S*(?:::|\.)\S*)\s", re.MULTILINE)
"""A layer that pnnx did not translate keeps its name from torch: ``aten::roll``, ``F.fold``."""


class Ncnn(Form):
    """Write a detector for ncnn, the runtime of phones."""

    kind: Literal["ncnn"] = "ncnn"
    precision: Literal["float32", "float16"] = "float32"
    """``float16`` stores the weights in half the bits; slimface computes in float32 with them."""

    suffix: ClassVar[str] = ".ncnn.param"
    extra: ClassVar[str] = "ncnn"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``: ``path``, its weights and its sidecar.

        Raises:
            UsageError: Decoding within a graph of any size was asked for: ncnn has no operation
                that counts cells.
        """
        try:
            import pnnx
        except ImportError as error:
            raise self.missing(error) from error
        if self.decode and self.dynamic:
            raise UsageError(
                "ncnn cannot decode within the graph for inputs of any size.\n"
                "Give --fixed as well, or leave --decode out: slimface decodes after the network."
            )
        graph = self.graph(detector)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.pt"
            self._trace(graph, self.example(detector), source)
            param, weights = self._convert(Path(pnnx.EXEC_PATH), source, detector)
            path.write_bytes(param)
            path.with_suffix(".bin").write_bytes(weights)
        said = self.metadata(detector, provenance, pnnx=_version("pnnx"))
        write_sidecar(path, said, path.with_suffix(".bin"))

    def _trace(self, graph: Graph, example: torch.Tensor, path: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecated, and still what pnnx reads
            trace: Any = torch.jit.trace
            traced = trace(graph, example, check_trace=False)
            torch.jit.save(traced, path)

    def _convert(self, tool: Path, source: Path, detector: Detector) -> tuple[bytes, bytes]:
        height, width = padded(detector.spec, self.height, self.width)
        # Every map must have another size in the second input, also after 128-fold reduction: what
        # is equal in both, pnnx takes for a constant.
        other = padded(detector.spec, height + 2 * 128, width + 5 * 128)
        words = [f"inputshape=[1,3,{height},{width}]"]
        if self.dynamic and not detector.input_size:
            words.append(f"inputshape2=[1,3,{other[0]},{other[1]}]")
        words.append(f"fp16={int(self.precision == 'float16')}")
        done = subprocess.run(
            [tool, source.name, *words],
            check=False,
            cwd=source.parent,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
        param, weights = (source.with_suffix(f".ncnn.{part}") for part in ("param", "bin"))
        if done.returncode or not (param.is_file() and weights.is_file()):
            raise ParityError(
                f"pnnx ended with code {done.returncode}: {done.stderr.strip()[-500:]}\n"
                "Export the model to another format, or report its operations to pnnx."
            )
        text = param.read_text(encoding="utf-8")
        if foreign := sorted(set(_FOREIGN.findall(text))):
            raise ParityError(
                f"ncnn cannot express the operation {', '.join(foreign)} of the model.\n"
                "Export it to another format, or replace the operation."
            )
        return text.encode(), weights.read_bytes()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
