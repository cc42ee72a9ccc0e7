"""OpenVINO: the same float graph, quantised by NNCF for OpenVINO's own format."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimface.compress.quantize.settings import Quantization, told
from slimface.core.faces import Floats
from slimface.errors import MissingError
from slimface.export.form import write_sidecar

if TYPE_CHECKING:
    from slimface.compress.quantize.sensitive import Noise


def write(
    model: Any,
    kept: Collection[str],
    inputs: Sequence[Floats],
    target: Path,
    settings: Quantization,
) -> None:
    """Write ``target``, its weights and its sidecar.

    Args:
        model: The float graph, an ``onnx.ModelProto``; its metadata become those of the file.
        kept: Names of nodes that stay in float32.
        inputs: What the network is calibrated on.
        target: The ``.xml`` file.
        settings: How.

    Raises:
        MissingError: openvino or nncf is not installed.
    """
    openvino, nncf = _libraries()
    read = openvino.Core().read_model(model.SerializeToString())
    names = {operation.get_friendly_name() for operation in read.get_ordered_ops()}
    made = nncf.quantize(
        read,
        nncf.Dataset(list(inputs)),
        subset_size=len(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=sorted(set(kept) & names), validate=False),
    )
    openvino.save_model(made, target, compress_to_fp16=False)
    said = {one.key: one.value for one in model.metadata_props}
    versions = {"openvino": openvino.__version__, "nncf": nncf.__version__}
    write_sidecar(target, told(said, settings, **versions), target.with_suffix(".bin"))


def sqnr_db(noise: "Noise", target: Path) -> float:
    """Return signal over noise of the file's outputs, in decibels."""
    openvino, _ = _libraries()
    compiled = openvino.Core().compile_model(
        target, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return noise.of(lambda images: list(compiled([images]).values()))


def _libraries() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingError(
            f"Quantising for OpenVINO needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[openvino]'"
        ) from error
    return openvino, nncf
