"""OpenVINO: a graph (``.xml``) and its weights (``.bin``), read from the ONNX graph."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from slimface.errors import ParityError
from slimface.export.form import Form, write_sidecar
from slimface.export.onnx import Onnx
from slimface.model.detector import Detector


class OpenVino(Form):
    """Write a detector as OpenVINO IR."""

    kind: Literal["openvino"] = "openvino"
    precision: Literal["float32", "float16"] = "float32"
    """``float16`` stores the weights in half the bits; processors compute in float32 with them."""

    suffix: ClassVar[str] = ".xml"
    extra: ClassVar[str] = "openvino"

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``: ``path``, its weights and its sidecar."""
        try:
            import openvino
        except ImportError as error:
            raise self.missing(error) from error
        own = self.graph(detector).detector
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            same = {name: getattr(self, name) for name in ("decode", "dynamic", "height", "width")}
            Onnx(**same).write(own, source)
            try:
                model = read_folded(source)
            except RuntimeError as error:
                raise ParityError(
                    f"OpenVINO {openvino.__version__} cannot express the model: {error}\n"
                    "Export it to another format, or update openvino."
                ) from error
        openvino.save_model(model, path, compress_to_fp16=self.precision == "float16")
        said = self.metadata(detector, provenance, openvino=openvino.__version__)
        write_sidecar(path, said, path.with_suffix(".bin"))


def read_folded(source: Path | bytes) -> Any:
    """Return an ONNX file, or its bytes, as OpenVINO's model, whatever is constant in it computed.

    The ``.xml`` of EResFD has 624 operations so, and 1,429 without; NNCF sees biases only so.
    (openvino.convert_model folds as well, and reports to its makers that it was called.)

    Raises:
        RuntimeError: OpenVINO cannot express the model.
    """
    import openvino
    from openvino import passes

    model = openvino.Core().read_model(source)
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(model)
    return model
