"""OpenVINO: the same float graph, quantised by NNCF for OpenVINO's own format.

NNCF puts its roundings where OpenVINO's kernels want them. RetinaFace-MobileNet0.25 runs 1.6 times
as fast as in float32 with them, and no faster with the roundings of our QDQ graph; those are
OpenVINO's file only where NNCF's comes out wrong. That happens: OpenVINO 2026.4.1 joins tensors of
eight bits and very few channels to something else than float32 does with the same roundings.
"""

import contextlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimface.compress.quantize.qdq import How
from slimface.compress.quantize.ranges import Method
from slimface.compress.quantize.settings import Quantization, told
from slimface.core.faces import Floats
from slimface.errors import MissingError, UsageError
from slimface.export.form import write_sidecar
from slimface.export.openvino import read_folded

if TYPE_CHECKING:
    from slimface.compress.quantize.sensitive import Noise

ESTIMATORS = {"minmax": "MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}
"""Ways to choose a range -> NNCF's name. Its default, the mean of each picture's extremes, cuts
bright pictures off: half of EResFD's decibels."""

_BARE = "/WithoutBiases"
"""OpenVINO makes two operations of a layer with a bias; the sum has the layer's name, and the one
with the weights has this behind it."""

TRIED: tuple[Method, ...] = ("minmax",)
"""What ``best`` measures. NNCF's quantiles make less noise on the whole and cut off what is bright:
a point of RetinaFace's AP, with the same layers in float32."""


def ways(settings: Quantization) -> list[How]:
    """Return what is to be measured where settings leave it open.

    Raises:
        UsageError: NNCF does not know the ranges that are asked for.
    """
    asked: tuple[Method, ...] = TRIED if settings.ranges == "best" else (settings.ranges,)
    for ranges in asked:
        if ranges not in ESTIMATORS:
            raise UsageError(
                f"Ranges by {ranges} are not for OpenVINO's files.\n"
                f"Choose one of best, {', '.join(ESTIMATORS)}."
            )
    corrects = (False, True) if settings.correct is None else (settings.correct,)
    return [How(one, correct, settings.reduce_range) for one in asked for correct in corrects]


def by_nncf(
    model: Any,
    kept: Collection[str],
    inputs: Sequence[Floats],
    how: How,
) -> Any:
    """Return the graph as OpenVINO reads it, quantised by NNCF.

    Args:
        model: The float graph, an ``onnx.ModelProto``.
        kept: Names of nodes that stay in float32.
        inputs: What the network is calibrated on.
        how: The arithmetic.

    Raises:
        MissingError: openvino or nncf is not installed.
    """
    _, nncf = _libraries()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    graph = read(model)
    names = {operation.get_friendly_name() for operation in graph.get_ordered_ops()}
    estimator = getattr(RangeEstimatorParametersSet, ESTIMATORS[how.ranges])
    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if how.reduce_range else OverflowFix.FIRST_LAYER,
        disable_bias_correction=not how.correct,
        activations_range_estimator_params=estimator,
    )
    # It draws its bars on stdout, where answers are.
    with contextlib.redirect_stdout(sys.stderr):
        return nncf.quantize(
            graph,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(
                names=sorted(names & {one for layer in kept for one in (layer, layer + _BARE)}),
                validate=False,
            ),
            advanced_parameters=advanced,
        )


def read(model: Any) -> Any:
    """Return an ``onnx.ModelProto``, float or QDQ, as OpenVINO's model."""
    _libraries()
    return read_folded(model.SerializeToString())


def write(made: Any, model: Any, target: Path, settings: Quantization) -> None:
    """Write ``target``, the ``.xml`` file, its weights and its sidecar.

    Args:
        made: OpenVINO's model.
        model: The float graph, whose metadata become those of the file.
        target: The file.
        settings: How it was made.
    """
    openvino, nncf = _libraries()
    openvino.save_model(made, target, compress_to_fp16=False)
    said = {one.key: one.value for one in model.metadata_props}
    versions = {"openvino": openvino.__version__, "nncf": nncf.__version__}
    write_sidecar(target, told(said, settings, **versions), target.with_suffix(".bin"))


def sqnr_db(noise: "Noise", made: Any) -> float:
    """Return signal over noise of the outputs of OpenVINO's model, run by it, in decibels."""
    openvino, _ = _libraries()
    compiled = openvino.Core().compile_model(
        made, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return noise.of(lambda images: list(compiled([images]).values()))


def _libraries() -> tuple[Any, Any]:
    # Else NNCF reports each call to its makers over the network, unasked.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingError(
            f"Quantising for OpenVINO needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[openvino]'"
        ) from error
    return openvino, nncf
