"""Training on the grid of the file: what is rounded in torch is what ONNX Runtime rounds."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from slimface.compress.quantize import calls, fake
from slimface.compress.quantize.calibrate import WHOLE, shown_to_networks
from slimface.compress.quantize.choice import Chosen, for_onnxruntime
from slimface.compress.quantize.choice import Network as ToQuantize
from slimface.compress.quantize.export import write_float
from slimface.compress.quantize.grid import check_agree, grid_of, on_grid, steps_of
from slimface.compress.quantize.qat import Qat
from slimface.compress.quantize.qdq import Graph, rounded_weights
from slimface.compress.quantize.settings import Quantization, Rounding
from slimface.compress.quantize.step import Quantize
from slimface.compress.quantize.takeover import take_over_
from slimface.core.grid import Grid
from slimface.data.source import DrawnScenes
from slimface.data.transforms import PlainAugment
from slimface.errors import UsageError
from slimface.export.graph import Graph as Answers
from slimface.export.pictures import sample_pictures
from slimface.loading import load
from slimface.model import checkpoint
from slimface.model.build import build
from slimface.model.eresfd import naver
from slimface.step import Context
from slimface.train.schedule import Schedule
from slimface.train.step import Train

PICTURES = [(name, picture[:160, :192]) for name, picture in sample_pictures(3)]
NONE = Quantization(keep=("none",), ranges="minmax", equalise=False, correct=False)
EVEN = NONE.model_copy(update={"equalise": True, "correct": True})


class Prepared:
    """A network, and the file of eight bits that its exported graph becomes."""

    def __init__(self, network: Any, folder: Path, settings: Quantization) -> None:
        self.network = copy.deepcopy(network)
        file = write_float(network, folder)
        self.inputs = shown_to_networks(load(file, threads=1), PICTURES)[WHOLE]
        self.glimpses = calls.glimpses(network, self.inputs)
        self.calls = calls.calls_of(self.network, self.glimpses)
        self.plan = ToQuantize(onnx.load(file), self.inputs, settings, whole=True)
        self.chosen: Chosen = for_onnxruntime(self.plan, lambda items, *_, **__: items)

    def take_over(self) -> bool:
        weights = self.chosen.graph.prepared(self.chosen.layers, self.chosen.how)
        graph = self.plan.plain
        return take_over_(self.network, graph, weights, self.calls, self.glimpses)

    def roundings(self) -> fake.Roundings:
        return fake.roundings_of(self.plan.plain, self.chosen, self.calls, self.glimpses)


@pytest.fixture(scope="module")
def detector() -> Any:
    """A small random detector whose norms have something to say."""
    network = build(naver("tiny", width=8), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
    return network


@pytest.fixture(scope="module")
def prepared(detector, tmp_path_factory) -> Prepared:
    return Prepared(detector, tmp_path_factory.mktemp("even"), EVEN)


@pytest.fixture(scope="module")
def ready(prepared) -> Prepared:
    assert prepared.take_over()
    fake.fake_quantize_(prepared.network, prepared.roundings())
    return prepared


def run(model: Any, images: np.ndarray, *, optimised: bool, also: list[str] = []) -> dict[str, Any]:  # noqa: B006
    """Run a QDQ graph, with kernels of integers or as it is written; also tell other tensors."""
    model = copy.deepcopy(model)
    for name in also:
        model.graph.output.add().name = name
    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


class _Told(fake._Rounder):
    """Notes what is answered after rounding, and goes on with what the file has there."""

    def __init__(self, roundings: fake.Roundings, instead: dict[int, np.ndarray]) -> None:
        super().__init__(roundings)
        self.instead = instead
        self.said: dict[int, np.ndarray] = {}

    def answered(self, call: Any, answer: torch.Tensor) -> torch.Tensor:
        answer = super().answered(call, answer)
        if self.count not in self.instead:
            return answer
        self.said[self.count] = answer.numpy()
        return torch.from_numpy(self.instead[self.count])


def test_each_rounding_of_the_network_is_that_of_the_file_to_one_step(ready):
    """Tensor by tensor: each is computed from those of the file, so that no error adds up."""
    made, images = ready.chosen.made, ready.inputs[0]
    back = {n.input[0]: n.output[0] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    pairs = {
        n.input[0]: back[n.output[0]] for n in made.graph.node if n.op_type == "QuantizeLinear"
    }
    theirs = run(made, images, optimised=False, also=list(pairs.values()))
    steps = steps_of(made)
    wanted = [
        tensor for tensor in ready.plan.plain.makers if tensor in steps and tensor != "images"
    ]
    values = ready.plan.plain.values(wanted, ready.glimpses)
    at = calls.places(values, ready.calls)
    assert len(at) == len(wanted) == len(ready.network.forward.roundings.answers)
    instead = {at[tensor]: theirs[pairs[tensor]] for tensor in wanted}
    rounder = _Told(ready.network.forward.roundings, instead)
    given = fake.rounded(torch.from_numpy(images), steps["images"])
    assert np.allclose(given.numpy(), theirs[pairs["images"]], atol=1e-4)
    with torch.no_grad(), rounder:
        type(ready.network).forward(ready.network, given)
    for tensor in wanted:
        apart = np.abs(rounder.said[at[tensor]] - instead[at[tensor]]) / steps[tensor].scale
        assert apart.max() < 1.01, tensor
        assert (apart > 0.5).mean() < 0.01, tensor


def test_the_network_is_as_far_from_float_as_its_file_is(detector, ready):
    """One rounding that falls the other way moves all behind it: noise is compared, not numbers."""
    images = ready.inputs[0]
    theirs = run(ready.chosen.made, images, optimised=True).values()
    given = torch.from_numpy(images)
    with torch.no_grad():
        exact, ours = Answers(detector)(given), Answers(ready.network)(given)
    for float_, mine, other in zip(exact, ours, theirs, strict=True):
        wanted = float_.numpy()
        noise = [np.square(one - wanted).mean() for one in (mine.numpy(), other)]
        assert noise[0] == pytest.approx(noise[1], rel=0.3)


def test_a_network_takes_over_folded_even_weights_and_computes_the_same(detector, ready):
    exported = ready.chosen.graph.prepared(ready.chosen.layers, ready.chosen.how)
    fresh = copy.deepcopy(detector)
    fresh.load_state_dict(ready.network.state_dict())
    images = ready.inputs[0]
    with torch.no_grad():
        ours = Answers(fresh)(torch.from_numpy(images))
    for mine, other in zip(ours, run(exported, images, optimised=True).values(), strict=True):
        assert np.allclose(mine.numpy(), other, atol=1e-3)
    convolution = next(one for one in fresh.modules() if isinstance(one, nn.Conv2d))
    before = next(one for one in detector.modules() if isinstance(one, nn.Conv2d))
    assert not torch.equal(convolution.weight, before.weight)


def test_weights_that_do_not_make_the_network_compute_the_same_are_not_taken_over(detector, ready):
    network = copy.deepcopy(detector)
    graph, seen = ready.plan.plain, ready.glimpses
    found = calls.calls_of(network, seen)
    first = next(number for number, call in enumerate(found) if call.name == "conv2d")
    # As if the first layer were used by something that has other weights for it.
    found[first] = found[first]._replace(values=[-one for one in found[first].values])
    found[first + 1] = found[first + 1]._replace(values=[-one for one in found[first + 1].values])
    weights = ready.chosen.graph.prepared(ready.chosen.layers, ready.chosen.how)
    assert not take_over_(network, graph, weights, found, seen)
    after = network.state_dict()
    assert all(torch.equal(after[name], one) for name, one in detector.state_dict().items())


@pytest.mark.parametrize("bits", [4, 8])
def test_fake_weights_of_any_bits_are_those_of_the_file(bits):
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    ours = fake.rounded_weight(weight, bits)
    assert np.allclose(ours.numpy(), rounded_weights(weight.numpy(), bits=bits))
    assert max(len(channel.unique()) for channel in ours) <= 2**bits


def test_rounding_is_blind_to_what_a_norm_multiplies_filters_by():
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, -2.0, 0.25, 64.0, 1e-3, 8.0]).view(-1, 1, 1, 1)
    folded = fake.rounded_weight(weight * scale)
    assert torch.allclose(folded, scale * fake.rounded_weight(weight), rtol=1e-4, atol=1e-6)


def test_a_copy_rounds_with_its_own_weights_and_nothing_is_saved_of_it(detector, ready):
    assert list(ready.network.state_dict()) == list(detector.state_dict())
    twin = copy.deepcopy(ready.network)
    other = copy.deepcopy(ready.network)
    images = torch.from_numpy(ready.inputs[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        said, zeros, exact = twin(images).logits, other(images).logits, detector(images).logits
    assert not torch.equal(said, exact)
    assert not torch.equal(said, zeros)


def test_a_batch_of_one_and_a_norm_of_weight_zero_learn_in_fake_eight_bits(ready):
    network = copy.deepcopy(ready.network)
    norm = next(one for one in network.modules() if isinstance(one, nn.BatchNorm2d))
    norm.weight.data.zero_()
    mean = norm.running_mean.clone()
    network.train()
    network(torch.from_numpy(ready.inputs[0][:1])).logits.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(one).all() for one in gradients)
    assert torch.equal(norm.running_mean, mean)


def test_a_network_that_computes_something_else_in_training_is_refused(ready):
    network = copy.deepcopy(ready.network)
    network.forward.roundings = fake.Roundings(
        calls=ready.network.forward.roundings.calls + 1, images=None, answers={}, layers={}
    )
    with pytest.raises(UsageError, match="other operations in training"):
        network(torch.from_numpy(ready.inputs[0]))


def test_a_grid_makes_the_same_file_again_whatever_tensors_are_called(ready):
    plan, chosen = ready.plan, ready.chosen
    grid = grid_of(chosen.graph, chosen.layers, chosen.how, EVEN)
    grid = Grid.parse(grid.model_dump_json(), where="here")
    renamed = copy.deepcopy(chosen.graph.prepared(chosen.layers, chosen.how))
    for node in renamed.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{n}_x" if n in plan.plain.tensors and n != "images" else n for n in names]
    keep = {one.name for one in renamed.graph.output}
    for node in renamed.graph.node:
        node.output[:] = [n[:-2] if n[:-2] in keep else n for n in node.output]
        node.input[:] = [n[:-2] if n[:-2] in keep else n for n in node.input]
    del renamed.graph.value_info[:]
    again = on_grid(Graph(renamed), grid)
    ours, theirs = steps_of(again), steps_of(chosen.made)
    assert sorted(ours.values()) == sorted(theirs.values())


def test_a_grid_of_another_graph_is_refused(ready):
    grid = Grid(layers=("/nowhere/Conv",), ranges={})
    with pytest.raises(UsageError, match="nowhere and 0 other places"):
        on_grid(ready.plan.plain, grid)


def test_settings_that_ask_for_something_else_than_was_learnt_are_refused():
    grid = Grid(layers=(), ranges={}, asked=Rounding(bits=4).model_dump(mode="json"))
    check_agree(grid, Quantization())
    check_agree(grid, Quantization(bits=4))
    with pytest.raises(UsageError, match="learnt with keep"):
        check_agree(grid, Quantization(keep=("none",)))


def test_a_grid_is_saved_with_the_weights_that_learnt_on_it_and_with_no_others(detector, tmp_path):
    network = copy.deepcopy(detector)
    grid = Grid(layers=("a",), ranges={"images": (-1.0, 2.0)}, asked={"bits": 8})
    checkpoint.set_grid(network, grid)
    checkpoint.save(network, tmp_path / "learnt.safetensors")
    back = checkpoint.load_checkpoint(tmp_path / "learnt.safetensors").network
    found = checkpoint.grid_of(back)
    assert found is not None and found.ranges == grid.ranges and found.layers == grid.layers
    with torch.no_grad():
        next(back.parameters()).add_(1)
    assert checkpoint.grid_of(back) is None
    checkpoint.save(back, tmp_path / "other.safetensors")
    assert checkpoint.load_checkpoint(tmp_path / "other.safetensors").network.grid is None


def test_the_steps_train_on_the_grid_and_write_it(detector, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMFACE_HOME", str(tmp_path / "home"))
    source = DrawnScenes(train=12, val=2, size_px=96)
    schedule = Schedule(epochs=1, batch_size=4, learning_rate=1e-4)
    train = Train(schedule=schedule, size_px=64, holdout=0, augment=PlainAugment())
    folders = [tmp_path / "qat", tmp_path / "quantize"]
    for folder in folders:
        folder.mkdir()
    asked = {"ranges": "minmax", "keep": ("stem",), "equalise": True, "correct": False}
    learnt = Qat(train=train, pictures=2, **asked)(detector, Context(folders[0], source))
    assert list(learnt.state_dict()) == list(detector.state_dict())
    assert "forward" not in vars(learnt)
    grid = checkpoint.grid_of(learnt)
    assert grid is not None
    step = Quantize(pictures=2, compared=2)
    assert step(learnt, Context(folders[1], source)) is learnt
    lines = (folders[1] / "records.jsonl").read_text().splitlines()
    records = {line["kind"]: line["record"] for line in map(json.loads, lines)}
    assert records["quantize"]["networks"][0]["learnt"]
    assert records["quantize"]["networks"][0]["kept"] == ["base/conv1/conv1.0"]
    assert records["export"]["precision"] == "int8"
    assert records["side_by_side"]["ms"] > 0
    file = folders[1] / records["export"]["file"]
    scales = {step.scale for step in steps_of(onnx.load(file)).values()}
    wanted = {np.float32((high - low) / 255) for low, high in grid.ranges.values()}
    others = [one for one in scales if min(abs(one - other) for other in wanted) > 1e-6 * one]
    assert len(others) <= (0 in wanted)  # a tensor that is always zero has any scale
    story = load(file).network.metadata
    assert "slimface.grid" not in story
