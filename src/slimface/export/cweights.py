"""C-ready weights: a folder for programs without a runtime, such as on microcontrollers.

``weights.bin`` holds the tensors, ``weights.h`` says where each lies, and ``model.json`` lists the
operations in order (those of ONNX, batch norms folded, every size a constant) with the spec. The
folder is complete: the check rebuilds the network from it alone and compares the faces it finds.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from slimface.core.spec import DetectorSpec
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.runtimes import OnnxNetwork
from slimface.errors import CheckpointError, ParityError
from slimface.export.form import Fixed
from slimface.export.onnx import Onnx
from slimface.model.detector import Detector

ALIGNMENT = 64
"""Tensors start at multiples of so many bytes: a cache line, and the widest vectors."""

_TYPES = {"float32": "SLIMFACE_FLOAT32", "int64": "SLIMFACE_INT64", "int32": "SLIMFACE_INT32",
          "bool": "SLIMFACE_BOOL"}  # fmt: skip

_HEADER = """\
/* {name}: where the tensors of weights.bin lie. Written by slimface; model.json has the operations
   in order and how to feed and read them. Numbers are little-endian. */
#ifndef SLIMFACE_WEIGHTS_H
#define SLIMFACE_WEIGHTS_H
#include <stddef.h>

#define SLIMFACE_HEIGHT {height}
#define SLIMFACE_WIDTH {width}
#define SLIMFACE_WEIGHTS_BYTES {size}
#define SLIMFACE_TENSORS {count}

enum slimface_type {{ SLIMFACE_FLOAT32, SLIMFACE_INT64, SLIMFACE_INT32, SLIMFACE_BOOL }};

struct slimface_tensor {{
  const char *name;
  enum slimface_type type;
  size_t offset;
  size_t bytes;
  int rank;
  int shape[5];
}};

static const struct slimface_tensor slimface_tensors[SLIMFACE_TENSORS] = {{
{rows}
}};

#endif
"""


class CWeights(Fixed):
    """Write a detector as C-ready weights, its operations and its spec."""

    kind: Literal["cweights"] = "cweights"
    precision: Literal["float32"] = "float32"

    suffix: ClassVar[str] = ".cweights"
    is_folder: ClassVar[bool] = True

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Form.write``: three files in the folder ``path``, which is there already.

        Raises:
            ParityError: A tensor has a type or a rank that the header has no word for.
        """
        height, width = self.sides(detector)
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "model.onnx"
            form = Onnx(decode=self.decode, dynamic=False, height=height, width=width)
            form.write(detector, source)
            content, layout, operations = _taken_apart(source)
        (path / "weights.bin").write_bytes(content)
        header = _HEADER.format(
            name=detector.spec.name, height=height, width=width, size=len(content),
            count=len(layout), rows="\n".join(_row(tensor) for tensor in layout),
        )  # fmt: skip
        (path / "weights.h").write_text(header, encoding="utf-8")
        said = self.metadata(detector, provenance)
        model = {"metadata": said, "tensors": layout, **operations}
        (path / "model.json").write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")

    def open(self, path: Path) -> Pipeline:
        """Return a detector rebuilt from the folder alone, run by ONNX Runtime."""
        return rebuilt(path)


def _taken_apart(source: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    """Return the tensors of an ONNX file in a row, where each lies, and the operations."""
    import onnx

    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    content, layout = bytearray(), []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if str(values.dtype) not in _TYPES or values.ndim > 5:
            raise ParityError(
                f"{tensor.name} has type {values.dtype} and {values.ndim} axes, which C-ready "
                "weights do not have.\nExport the model to another format."
            )
        content += bytes(-len(content) % ALIGNMENT)
        raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
        layout.append(
            {"name": tensor.name, "type": str(values.dtype), "shape": list(values.shape),
             "offset": len(content), "bytes": len(raw)}
        )  # fmt: skip
        content += raw
    nodes = [
        {
            "op": node.op_type,
            "name": node.name,
            "inputs": list(node.input),
            "outputs": list(node.output),
            "attributes": {one.name: _attribute(onnx, one, node) for one in node.attribute},
        }
        for node in graph.node
    ]
    return bytes(content), layout, {
        "opset": model.opset_import[0].version,
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "operations": nodes,
    }  # fmt: skip


def _attribute(onnx: Any, attribute: Any, node: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    if attribute.type == onnx.AttributeProto.TENSOR:
        array = onnx.numpy_helper.to_array(value)
        return {"tensor": array.tolist(), "type": str(array.dtype), "shape": list(array.shape)}
    raise ParityError(
        f"C-ready weights cannot express the attribute {attribute.name} of {node.op_type} "
        f"({node.name}).\nExport the model to another format."
    )


def _row(tensor: Mapping[str, Any]) -> str:
    shape = ", ".join(map(str, tensor["shape"] or [1]))
    return (
        f'  {{"{tensor["name"]}", {_TYPES[tensor["type"]]}, {tensor["offset"]}, '
        f"{tensor['bytes']}, {len(tensor['shape'])}, {{{shape}}}}},"
    )


def rebuilt(folder: Path) -> Pipeline:
    """Return the detector of a folder of C-ready weights, run by ONNX Runtime.

    Raises:
        CheckpointError: The folder is damaged.
    """
    import onnx
    from onnx import helper, numpy_helper

    try:
        said = json.loads((folder / "model.json").read_bytes())
        content = (folder / "weights.bin").read_bytes()
        tensors = [
            numpy_helper.from_array(
                np.frombuffer(content, one["type"], offset=one["offset"],
                              count=one["bytes"] // np.dtype(one["type"]).itemsize)
                .reshape(one["shape"]), one["name"],
            )
            for one in said["tensors"]
        ]  # fmt: skip
        nodes = [
            helper.make_node(
                one["op"], one["inputs"], one["outputs"], one["name"],
                **{key: _value(numpy_helper, value) for key, value in one["attributes"].items()},
            )
            for one in said["operations"]
        ]  # fmt: skip
        canvas = json.loads(said["metadata"]["slimface.canvas"])
        inputs = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, *canvas])
            for name in said["inputs"]
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in said["outputs"]]
        graph = helper.make_graph(nodes, "rebuilt", inputs, outputs, tensors)
        version = helper.make_opsetid("", said["opset"])
        model = helper.make_model(graph, opset_imports=[version], ir_version=9)
        helper.set_model_props(model, said["metadata"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(
            f"{folder}: not a complete folder of C-ready weights ({error}).\nExport it again."
        ) from None
    network = OnnxNetwork(folder, threads=1, content=model.SerializeToString())
    said_by = network.description
    spec = cast(DetectorSpec, said_by.spec)
    return Pipeline(spec, network, name=folder.stem, runtime="rebuilt", canvas=said_by.canvas)


def _value(numpy_helper: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    array = np.asarray(value["tensor"], dtype=value["type"]).reshape(value["shape"])
    return numpy_helper.from_array(array)
