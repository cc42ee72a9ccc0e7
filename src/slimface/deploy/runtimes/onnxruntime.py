"""ONNX Runtime: ``.onnx``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimface.core.faces import Floats
from slimface.core.spec import DetectorSpec, Postprocess
from slimface.deploy.pipeline import Answer, Settings
from slimface.deploy.runtimes.description import (
    LANDMARKS_NAME,
    describe,
    does_not_run,
    first_line,
    limits,
    not_installed,
    read_model,
)
from slimface.errors import CheckpointError

# The key of a tensor stored elsewhere, in every spelling that protocol buffers allow.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")


class OnnxNetwork:
    """A network run by ONNX Runtime on the processor.

    Raises:
        MissingError: There is no such file, or onnxruntime is not installed.
        CheckpointError: The file is damaged, too large, keeps tensors outside of itself, or was
            not exported by slimface.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: str | Path, *, threads: int | None = None, content: bytes | None = None
    ) -> None:
        """Open a model.

        Args:
            path: The ``.onnx`` file.
            threads: Threads within an operator; None leaves it to the runtime.
            content: The bytes of the file where they were read already.
        """
        self.path = Path(path)
        self._session = open_session(self.path, content or read_model(self.path), threads)
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.description = describe(self.metadata, self.path)
        self.spec = self.description.spec
        self.suppresses = self.description.outputs == "faces"
        spec = self.spec
        self._plan = spec.postprocess if isinstance(spec, DetectorSpec) else Postprocess()
        self._names = self._outputs()
        self._input = self._session.get_inputs()[0].name

    def __call__(
        self,
        images: Floats,
        settings: Settings = Settings(),  # noqa: B008
    ) -> Answer:
        """Run the network; ``settings`` matter where it suppresses within its graph."""
        inputs = {self._input: images}
        if self.suppresses:
            inputs |= limits(self._plan, settings)
        try:
            tensors = self._session.run(self._names, inputs)
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise does_not_run(self.path, images.shape, error) from error
        return self.description.answer(tensors)

    def _outputs(self) -> list[str]:
        """Return the names of the outputs in our order."""
        present = [output.name for output in self._session.get_outputs()]
        names = [name for name in self.description.names if name != LANDMARKS_NAME]
        if LANDMARKS_NAME in present:
            names.append(LANDMARKS_NAME)
        absent = [name for name in names if name not in present]
        if self.suppresses:
            free = [one.name for one in self._session.get_overridable_initializers()]
            absent += [name for name in limits(self._plan) if name not in free]
        inputs = len(self._session.get_inputs())
        if absent or inputs != 1:
            missing = f"; absent: {', '.join(absent)}" if absent else ""
            raise CheckpointError(
                f"{self.path}: a network with {self.description.outputs} outputs has one input and "
                f"the outputs {', '.join(names)}; this one has {inputs} and "
                f"{', '.join(present)}{missing}.\nExport the model again."
            )
        return names


def open_session(path: Path, content: bytes, threads: int | None) -> Any:
    """Return a session on the processor; the arguments are those of ``OnnxNetwork``.

    Raises:
        MissingError: onnxruntime is not installed.
        CheckpointError: The file is damaged, or keeps tensors outside of itself.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise not_installed(path, "onnxruntime", "onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if _EXTERNAL.search(content):
        raise CheckpointError(
            f"{path}: the model keeps tensors in other files, which is refused: a path inside of "
            "a model is not to be trusted.\nStore it as one file, or export it again."
        )
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot read it: {first_line(error)}\n"
            "The file is damaged, cut off or no ONNX model; copy or export it again."
        ) from None
