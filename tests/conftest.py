"""Where tests find the real pictures and weights, and what they share."""

import os
from pathlib import Path

import pytest

INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from slimface.cli.app import main
main()
"""
"""The command line, for ``python -c``, where a test presses Ctrl-C: a shell starts its background
jobs deaf to it, and deafness is inherited."""

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"no {what} at {folder}; set {variable} to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def wider_root() -> Path:
    """The folder with WIDER_train, WIDER_val, wider_face_split and eval_tools."""
    return _folder("SLIMFACE_WIDER", _SHARED / "data" / "wider", "WIDER FACE pictures")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder with the published weights, one subfolder a family."""
    return _folder("SLIMFACE_WEIGHTS", _SHARED / "weights", "published weights")


def _tiny_onnx(path: Path, *, decoded: bool) -> Path:
    """Write a detector by hand: a face is any bright 4 x 4 cell, its box the cell's anchor."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from slimface.core.anchors import AnchorGrid, AnchorLevel
    from slimface.core.spec import Architecture, DetectorSpec, Preprocess

    spec = DetectorSpec(
        name="tiny",
        architecture=Architecture(name="tiny"),
        preprocess=Preprocess(mean=(127.5, 127.5, 127.5), scale=1 / 127.5),
        anchors=AnchorGrid(levels=(AnchorLevel(stride=4, sizes=(8.0,)),)),
    )

    def constant(name: str, value: object, dtype: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)

    def output(name: str, shape: list[object]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node(
            "AveragePool", ["images"], ["cells"], kernel_shape=[4, 4], strides=[4, 4], ceil_mode=1
        ),
        helper.make_node("Conv", ["cells", "face"], ["map"]),
        helper.make_node("Reshape", ["map", "flat"], ["logits"]),
        helper.make_node("Unsqueeze", ["logits", "last"], ["column"]),
        helper.make_node("Mul", ["column", "nothing"], ["offsets"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Add", ["offsets", "one box"], ["boxes"]),
    ]
    constants = [
        constant("face", np.full((1, 3, 1, 1), 3.0)),
        constant("flat", [0, -1], np.int64),
        constant("last", [2], np.int64),
        constant("nothing", np.zeros((1, 1, 4))),
        constant("one box", [2.0, 3.0, 22.0, 33.0]),
    ]
    names = ("scores", "boxes") if decoded else ("logits", "offsets")
    graph = helper.make_graph(
        nodes if decoded else nodes[:5],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [output(names[0], ["b", "n"]), output(names[1], ["b", "n", 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    outputs = "decoded" if decoded else "raw"
    helper.set_model_props(
        model, {"slimface.spec": spec.model_dump_json(), "slimface.outputs": outputs}
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-made detector with raw outputs: it finds bright cells of 4 x 4 pixels."""
    return _tiny_onnx(tmp_path_factory.mktemp("models") / "tiny.onnx", decoded=False)


@pytest.fixture(scope="session")
def tiny_decoded_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with decoded outputs; every box is 2 3 22 33."""
    return _tiny_onnx(tmp_path_factory.mktemp("models") / "decoded.onnx", decoded=True)
