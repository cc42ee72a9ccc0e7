"""Quantisation: on small networks, in the runtime itself."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimface.compress.quantize import openvino
from slimface.compress.quantize.calibrate import WHOLE, Seen, shown_to_networks
from slimface.compress.quantize.choice import Network, as_learnt, for_onnxruntime
from slimface.compress.quantize.export import write_float
from slimface.compress.quantize.grid import grid_of, steps_of
from slimface.compress.quantize.pairs import joined
from slimface.compress.quantize.ptq import quantize
from slimface.compress.quantize.qdq import Graph, How, rounded_weights
from slimface.compress.quantize.ranges import METHODS, range_of, rounded
from slimface.compress.quantize.sensitive import Noise, to_keep
from slimface.compress.quantize.settings import Quantization
from slimface.errors import MissingError, RecipeError, UsageError
from slimface.export.pictures import sample_pictures
from slimface.loading import load
from slimface.model.build import build
from slimface.model.eresfd import naver

PICTURES = [(name, picture[:160, :192]) for name, picture in sample_pictures(3)]
NONE = Quantization(keep=("none",), ranges="minmax", equalise=False, correct=False)


@pytest.fixture(scope="module")
def detector() -> Any:
    """A small random detector whose norms have something to say."""
    network = build(naver("tiny", width=8), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


@pytest.fixture(scope="module")
def float_file(detector, tmp_path_factory) -> Path:
    return write_float(detector, tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def quantized_file(float_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "small.onnx"
    quantize(float_file, out, NONE, PICTURES)
    return out


@pytest.fixture(scope="module")
def inputs(float_file) -> list[np.ndarray]:
    return shown_to_networks(load(float_file, threads=1), PICTURES)[WHOLE]


@pytest.fixture(scope="module")
def graph(float_file, inputs) -> Graph:
    looked = Graph(onnx.load(float_file))
    looked.look(inputs)
    return looked


def seen_of(values: np.ndarray) -> Seen:
    seen = Seen()
    seen.add(values.astype(np.float32))
    return seen


def test_the_range_by_mse_is_never_worse_than_the_whole_range():
    values = np.append(np.random.default_rng(0).normal(size=(1, 1, 4000)), [[[80.0]]], axis=2)
    seen = seen_of(values)

    def error(low: float, high: float) -> float:
        return float(np.square(rounded(seen.values, low, high) - seen.values).mean())

    assert error(*range_of(seen, "mse")) <= error(*range_of(seen, "minmax"))


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_lone_outlier_does_not_stretch_the_range(method):
    values = np.random.default_rng(0).normal(size=(1, 1, 60_000))
    seen = seen_of(values.clip(-4, 4))
    for _ in range(15):
        seen.add(values.clip(-4, 4).astype(np.float32))
    seen.highest = 40.0
    assert range_of(seen, method)[1] < 40.0


@pytest.mark.parametrize("method", METHODS)
def test_zero_is_always_told_exactly(method):
    low, high = range_of(seen_of(np.full((1, 2, 50), 3.0)), method)
    assert low == 0 <= high
    assert rounded(np.zeros(1, np.float32), low, high) == 0


def test_a_filter_of_zeros_stays_one_and_others_move_by_half_a_step_at_most():
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weight[2] = 0
    back = rounded_weights(weight)
    assert not back[2].any()
    step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    assert (np.abs(back - weight) <= step / 2 + 1e-6).all()


def test_answers_are_not_rounded_and_all_that_layers_read_is(graph):
    model = graph.quantized(graph.layers, How())
    rounds = set(steps_of(model))
    answers = {graph.nodes[name].output[0] for name in graph.heads}
    read = {graph.nodes[name].input[0] for name in graph.layers}
    assert answers and not answers & rounds
    assert read <= rounds
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    assert len(weights) == len(graph.layers)
    assert {makers[name] for name in weights} == {"DequantizeLinear"}


def test_what_is_joined_has_the_steps_of_the_whole(graph):
    steps = steps_of(graph.quantized(graph.layers, How("mse")))
    readers = Counter(name for node in graph.nodes.values() for name in node.input)
    joins = [node for node in graph.nodes.values() if node.op_type == "Concat"]
    parts = {
        part: node.output[0]
        for node in joins
        for part in node.input
        if part in steps and readers[part] == 1
    }
    assert parts
    assert all(steps[part] == steps[whole] for part, whole in parts.items())


def test_a_part_that_something_else_reads_keeps_its_own_steps():
    nodes = [
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Concat", ["a", "c"], ["ac"]),
        onnx.helper.make_node("Concat", ["ac", "d"], ["whole"]),
    ]
    ranges = {"a": (0.0, 1.0), "b": (0.0, 1.0), "c": (-1.0, 2.0), "d": (0.0, 3.0)}
    whole = (-1.0, 2.5)
    ranges |= {"ac": (-1.0, 2.0), "whole": whole}
    found = joined(nodes, ["whole", "d"], ranges)
    # Nested ones go with the outermost; d is an answer, too.
    assert found == ranges | {"ac": whole, "c": whole}


def test_equalisation_changes_nothing_but_ranges(graph, inputs):
    even = graph.equalised(inputs)
    assert Noise(graph, inputs).sqnr_db(even.model) > 80
    peaks = [seen.peak for seen in even.seen.values() if len(seen.means)]
    assert all(np.isfinite(peak).all() for peak in peaks)


def test_a_layer_that_is_kept_has_its_float_weights_and_others_have_whole_numbers(graph):
    kept = graph.layers[0]
    model = graph.quantized(graph.layers[1:], How())
    nodes = {node.name: node for node in model.graph.node}
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    assert made.get(nodes[kept].input[1]) is None
    assert all(made[nodes[name].input[1]] == "DequantizeLinear" for name in graph.layers[1:])


def test_the_fewer_layers_are_quantised_the_less_noise(graph, inputs):
    noise = Noise(graph, inputs)
    everything = noise.sqnr_db(graph.quantized(graph.layers, How()))
    few = noise.sqnr_db(graph.quantized(graph.layers[-3:], How()))
    assert few > everything
    assert noise.sqnr_db(graph.quantized([], How())) > 100


def test_auto_keeps_layers_until_the_aim_is_reached(graph, inputs):
    graph = copy.copy(graph)
    graph.layers = graph.layers[:6]
    noise = Noise(graph, inputs)
    everything = noise.sqnr_db(graph.quantized(graph.layers, How()))
    assert to_keep(graph, noise, How(), everything - 1) == ([], [])
    aim = everything + 3
    kept, ranking = to_keep(graph, noise, How(), aim)
    rest = [name for name in graph.layers if name not in kept]
    assert kept and noise.sqnr_db(graph.quantized(rest, How())) >= aim
    assert [one.sqnr_db for one in ranking] == sorted(one.sqnr_db for one in ranking)


@pytest.mark.parametrize(
    ("settings", "whole", "aim"),
    [
        (Quantization(), True, 16),
        (Quantization(), False, 24),
        (Quantization(bits=4), False, 16),
        (Quantization(sqnr_db=19), False, 19),
    ],
)
def test_a_net_of_a_cascade_is_held_to_less_noise(float_file, inputs, settings, whole, aim):
    network = Network(onnx.load(float_file), inputs[:1], settings, whole=whole)
    assert network.aim_db == aim


def test_the_file_runs_as_a_detector_says_what_it_is_and_is_smaller(float_file, tmp_path):
    out = tmp_path / "small.onnx"
    found = quantize(float_file, out, NONE, PICTURES)
    opened = load(out, threads=1)
    assert opened.spec == load(float_file).spec
    assert opened.network.description.precision == "int8"
    story = json.loads(opened.network.metadata["slimface.provenance"])
    assert story["quantization"]["ranges"] == "minmax"
    assert found.bytes == out.stat().st_size < found.float_bytes
    opened.detect(PICTURES[0][1])


def test_the_same_pictures_give_the_same_file(float_file, quantized_file, tmp_path):
    quantize(float_file, tmp_path / "other.onnx", NONE, PICTURES)
    assert quantized_file.read_bytes() == (tmp_path / "other.onnx").read_bytes()


def test_four_bits_are_a_smaller_file_that_runs(float_file, quantized_file, tmp_path):
    out = tmp_path / "four.onnx"
    found = quantize(float_file, out, NONE.model_copy(update={"bits": 4}), PICTURES)
    assert found.bytes < quantized_file.stat().st_size
    load(out, threads=1).detect(PICTURES[0][1])


def test_layers_too_loud_in_four_bits_have_eight(float_file, inputs):
    settings = Quantization(bits=4, ranges="minmax", equalise=False)
    network = Network(onnx.load(float_file), inputs, settings, whole=True)
    graph, noise = network.plain, network.noise
    graph.layers = graph.layers[:6]
    in_eight = graph.quantized(graph.layers, How())
    most, least = noise.sqnr_db(in_eight), noise.sqnr_db(graph.quantized(graph.layers, How(bits=4)))
    network.aim_db = (most + least) / 2
    chosen = for_onnxruntime(network, lambda items, *_, **__: items)
    assert not chosen.kept
    assert 0 < len(chosen.how.eight) < len(chosen.layers)
    assert network.aim_db <= chosen.sqnr_db < most
    assert len(chosen.made.SerializeToString()) < len(in_eight.SerializeToString())
    learnt = as_learnt(network, grid_of(graph, chosen.layers, chosen.how, settings))
    assert learnt.how.eight == chosen.how.eight
    assert learnt.made == chosen.made


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (How(bits=4), "INT4"),
        (How(), "INT8"),
        (How(reduce_range=True), "INT8"),
        (How(bits=4, eight=frozenset(["{}"])), "INT8"),
        (How(bits=4, eight=frozenset(["{}"]), reduce_range=True), "INT8"),
    ],
)
def test_whole_numbers_of_the_file_are_the_rounded_weights(graph, how, kind):
    layer = graph.layers[1]
    how = replace(how, eight=frozenset(name.format(layer) for name in how.eight))
    made = graph.quantized([layer], how)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    name = graph.nodes[layer].input[1]
    (back,) = [
        node
        for node in made.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].startswith(f"{name}_")
    ]
    assert tensors[back.input[0]].data_type == onnx.TensorProto.DataType.Value(kind)
    steps, scales = (onnx.numpy_helper.to_array(tensors[one]) for one in back.input[:2])
    exact = onnx.numpy_helper.to_array(graph.weights[name])
    ours = rounded_weights(exact, bits=how.weight_bits(layer))
    theirs = steps.astype(np.float32) * scales.reshape(-1, 1, 1, 1)
    # A tie may be rounded either way.
    assert np.mean(np.abs(ours - theirs) > 1e-5) < 0.01


def test_four_bits_for_openvino_are_refused():
    with pytest.raises(RecipeError, match="for ONNX Runtime alone"):
        Quantization.parse({"bits": 4, "runtime": "openvino"}, where="here")


def test_no_picture_is_refused(float_file, tmp_path):
    with pytest.raises(UsageError, match="no picture to calibrate on"):
        quantize(float_file, tmp_path / "a.onnx", NONE, [])
    assert not list(tmp_path.iterdir())


def test_what_is_quantised_already_is_refused(quantized_file, tmp_path):
    with pytest.raises(UsageError, match="quantised already"):
        quantize(quantized_file, tmp_path / "b.onnx", NONE, PICTURES)


def test_a_layer_to_keep_that_is_not_there_is_named(float_file, tmp_path):
    with pytest.raises(UsageError, match="no_such_layer"):
        settings = NONE.model_copy(update={"keep": ("no_such_layer",)})
        quantize(float_file, tmp_path / "a.onnx", settings, PICTURES)


def test_a_missing_file_and_a_wrong_suffix_are_refused(float_file, tmp_path):
    with pytest.raises(MissingError):
        quantize(tmp_path / "none.onnx", tmp_path / "a.onnx", NONE, PICTURES)
    with pytest.raises(UsageError, match=r"\.onnx"):
        quantize(float_file, tmp_path / "a.bin", NONE, PICTURES)


def test_an_operator_without_integer_kernel_is_named_with_its_layer():
    nodes = [onnx.helper.make_node("Einsum", ["x", "w"], ["y"], "/body/mix/Einsum", equation="")]
    nodes[0].attribute[0].s = b"bchw,dc->bdhw"
    weight = onnx.numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    shape = [1, 3, 8, 8]
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, shape)], [value("y", 1, shape)], [weight]
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(UsageError, match=r"body/mix \(Einsum\)"):
        Graph(model)


@pytest.fixture(scope="module")
def openvino_file(float_file, tmp_path_factory) -> tuple[Path, Any]:
    """OpenVINO's file of a network so thin that OpenVINO joins its tensors wrongly in NNCF's."""
    pytest.importorskip("nncf")
    out = tmp_path_factory.mktemp("openvino") / "small.xml"
    return out, quantize(float_file, out, NONE.model_copy(update={"runtime": "openvino"}), PICTURES)


def test_openvino_runs_a_file_that_says_what_the_float_file_says(openvino_file):
    out, found = openvino_file
    assert found.networks[0].sqnr_db > 20
    opened = load(out, threads=1)
    assert opened.runtime == "openvino" and opened.network.description.precision == "int8"
    opened.detect(PICTURES[0][1])


def test_roundings_that_openvino_computes_wrongly_are_not_taken(graph, inputs, openvino_file):
    model = openvino.by_nncf(graph.model, (), inputs, How())
    assert openvino.sqnr_db(Noise(graph, inputs), model) < NONE.aim_db(whole=True)
    assert openvino_file[1].networks[0].by == "slimface"


def test_nncf_quantises_what_is_not_kept_and_is_close(tmp_path):
    pytest.importorskip("nncf")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a", "c"], ["m"], "/one/Conv", pads=[1] * 4),
        onnx.helper.make_node("Relu", ["m"], ["n"], "/one/Relu"),
        onnx.helper.make_node("Conv", ["n", "b"], ["y"], "/two/Conv", pads=[1] * 4),
    ]
    random = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(random.normal(size=size).astype(np.float32), name)
        for name, size in (("a", (16, 3, 3, 3)), ("b", (4, 16, 3, 3)), ("c", (16,)))
    ]
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, [1, 3, 32, 32])], [value("y", 1, [1, 4, 32, 32])], weights
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 10
    shown = [random.normal(size=(1, 3, 32, 32)).astype(np.float32) for _ in range(2)]
    graph = Graph(model)
    graph.look(shown)
    noise = Noise(graph, shown)
    both, one = (
        openvino.sqnr_db(noise, openvino.by_nncf(model, kept, shown, How()))
        for kept in ((), ("/one/Conv",))
    )
    assert 30 < both < one < 70


def test_ranges_that_nncf_does_not_know_are_refused(float_file, tmp_path):
    pytest.importorskip("nncf")
    settings = NONE.model_copy(update={"runtime": "openvino", "ranges": "entropy"})
    with pytest.raises(UsageError, match="entropy are not for OpenVINO"):
        quantize(float_file, tmp_path / "a.xml", settings, PICTURES)
    assert not list(tmp_path.iterdir())
