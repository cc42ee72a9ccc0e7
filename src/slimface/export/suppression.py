"""Suppression within an ONNX graph: what comes out are faces, ready to draw.

``score_floor``, ``nms_overlap``, ``pre_nms`` and ``cap`` are inputs with defaults (initializers of
the same names, as ONNX has them since IR version 4): who gives pictures alone gets what the spec
says, and who evaluates can lower the floor. The rule is that of ``slimface.core.boxes.suppress``:
at most ``pre_nms`` boxes, best first, enter; of two that overlap by more than ``nms_overlap`` the
lower scored goes; ``cap`` stay.

Source: the operators TopK and NonMaxSuppression of the ONNX standard, opset 11.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from slimface.core.spec import DetectorSpec
from slimface.deploy.runtimes import DECODED_NAMES, LANDMARKS_NAME, PICTURES_NAME
from slimface.deploy.runtimes.description import limits

_SCORES, _BOXES = DECODED_NAMES


def append_suppression(onnx: Any, model: Any, spec: DetectorSpec) -> None:
    """Let a decoding graph answer with the faces that stay, instead of a score for each anchor.

    Args:
        onnx: The package.
        model: With the outputs ``scores`` ``(b, n)``, ``boxes`` ``(b, n, 4)`` and perhaps
            ``landmarks`` ``(b, n, k, 2)``. In their place come those of the ``m`` faces of all
            pictures, picture by picture, best first, and ``pictures`` ``(m,)``: which one of the
            batch shows each.
        spec: Whose postprocessing gives the defaults.
    """
    graph = model.graph
    names = [output.name for output in graph.output]
    _rename_outputs(graph, {name: f"all_{name}" for name in names})
    defaults = limits(spec.postprocess)
    for name, value in defaults.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    for name, numbers in _CONSTANTS.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(numbers, dtype=np.int64), name)
        graph.initializer.append(tensor)
    graph.node.extend(_nodes(onnx, points=LANDMARKS_NAME in names))
    del graph.output[:]
    tails = {_SCORES: [], _BOXES: [4], LANDMARKS_NAME: [spec.landmarks, 2]}
    for name in names:
        info = onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, ["faces", *tails[name]]
        )
        graph.output.append(info)
    graph.output.append(
        onnx.helper.make_tensor_value_info(PICTURES_NAME, onnx.TensorProto.INT64, ["faces"])
    )


_CONSTANTS = {
    "nms_axis_1": [1],
    "nms_last_axis": [-1],
    "nms_picture": 0,
    "nms_picture_and_box": [0, 2],
}


def _nodes(onnx: Any, *, points: bool) -> Iterator[Any]:
    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> Any:
        return onnx.helper.make_node(kind, inputs, list(outputs), **attributes)

    # The best pre_nms of each picture: TopK refuses to be asked for more than there are.
    yield node("Shape", [f"all_{_SCORES}"], "nms_shape", start=1)
    yield node("Min", ["nms_shape", "pre_nms"], "nms_count")
    yield node("TopK", [f"all_{_SCORES}", "nms_count"], "nms_scores", "nms_order", axis=-1)
    yield node("Unsqueeze", ["nms_order", "nms_last_axis"], "nms_anchor")
    yield node("GatherND", [f"all_{_BOXES}", "nms_anchor"], "nms_boxes", batch_dims=1)
    yield node("Unsqueeze", ["nms_scores", "nms_axis_1"], "nms_class")
    yield node(
        "NonMaxSuppression",
        ["nms_boxes", "nms_class", "cap", "nms_overlap", "score_floor"],
        "nms_kept",
    )
    # Kept are rows of picture, class and box.
    yield node("Gather", ["nms_kept", "nms_picture_and_box"], "nms_place", axis=1)
    yield node("Gather", ["nms_kept", "nms_picture"], PICTURES_NAME, axis=1)
    yield node("GatherND", ["nms_scores", "nms_place"], _SCORES)
    yield node("GatherND", ["nms_boxes", "nms_place"], _BOXES)
    if points:
        yield node("GatherND", [f"all_{LANDMARKS_NAME}", "nms_anchor"], "nms_points", batch_dims=1)
        yield node("GatherND", ["nms_points", "nms_place"], LANDMARKS_NAME)


def _rename_outputs(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
