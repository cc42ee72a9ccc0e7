import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimface.compress.prune.importance import (
    L1,
    L2,
    Activation,
    Fpgm,
    Importance,
    Lamp,
    NormScale,
    Random,
    Taylor,
    importances,
)
from slimface.compress.prune.probe import Probe
from slimface.core.faces import Faces
from slimface.data.batches import Batch
from slimface.errors import CheckpointError, UsageError
from slimface.model import eresfd, mtcnn, retinaface
from slimface.model.build import build
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.train.criterion import MultiBox

ALL = [
    *(L1(), L2(), Fpgm(), Lamp(), NormScale(), Random(), Activation()),
    *(Taylor(), Taylor(of="weight"), Taylor(signed=True, normalise="l2")),
]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(eresfd.naver(width=8), seed=3)


@pytest.fixture(scope="module")
def groups(detector: Detector) -> tuple[ChannelGroup, ...]:
    return channel_groups(detector)


@pytest.fixture(scope="module")
def probe() -> Probe:
    def batch(seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=generator)
        boxes = np.array([[20, 20, 60, 70], [70, 50, 120, 110]], dtype=np.float32)
        return Batch(images, [faces(boxes), faces(boxes[:1])])

    return Probe([batch(0), batch(1)], MultiBox())


def faces(boxes: np.ndarray) -> Faces:
    return Faces(boxes, np.ones(len(boxes), dtype=np.float32))


def filters(count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


def test_norms_are_those_of_each_filter() -> None:
    rows = filters()
    assert L1()(rows).tolist() == pytest.approx([sum(map(abs, row)) for row in rows.tolist()])
    assert L2()(rows).tolist() == pytest.approx(
        [sum(x * x for x in row) ** 0.5 for row in rows.tolist()]
    )


def test_fpgm_is_the_sum_of_distances_to_all_others() -> None:
    rows = filters()
    want = [sum(float((a - b).norm()) for b in rows) for a in rows]
    assert Fpgm()(rows).tolist() == pytest.approx(want, rel=1e-5)


def test_fpgm_tells_nearly_equal_filters_apart() -> None:
    """With the matrix-product form of cdist these distances would drown in rounding."""
    rows = torch.full((3, 9), 100.0)
    rows[1] += 1e-3
    rows[2] += 1
    assert Fpgm()(rows).argmin() == 1


def test_the_filter_amid_its_peers_goes_first() -> None:
    rows = torch.tensor([[0.0, 0], [10, 0], [0, 10], [3, 3]])
    assert Fpgm()(rows).argmin() == 3
    assert L2()(rows).argmin() == 0


def test_lamp_divides_by_all_that_are_at_least_as_large() -> None:
    rows = filters()
    squared = rows.square().sum(dim=1).tolist()
    want = [one / sum(other for other in squared if other >= one) for one in squared]
    assert Lamp()(rows).tolist() == pytest.approx(want)
    assert max(want) == pytest.approx(1)


@pytest.mark.parametrize("importance", ALL, ids=lambda one: f"{one.kind}-{one.normalise}")
def test_every_channel_that_can_go_has_a_value(
    detector: Detector, groups: tuple[ChannelGroup, ...], probe: Probe, importance: Importance
) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    scores = importances(detector, groups, importance, probe)
    assert scores.keys() == {group.name for group in groups if group.prunable}
    for group in groups:
        if group.prunable:
            score = scores[group.name]
            assert score.shape == (group.size,)
            assert score.isfinite().all() and (score >= 0).all() and not score.requires_grad
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name]), "the detector stays as it was"


def test_all_writers_of_a_stream_have_a_say(
    detector: Detector, groups: tuple[ChannelGroup, ...]
) -> None:
    stream = max((g for g in groups if g.prunable), key=lambda g: len(g.members))
    before = importances(detector, groups, L1())[stream.name]
    other = build(detector.spec, seed=3)
    writer = [
        m.module
        for m in stream.members
        if m.side == "out" and isinstance(other.get_submodule(m.module), nn.Conv2d)
    ][-1]
    with torch.no_grad():
        other.get_submodule(writer).weight[0] = 0
    after = importances(other, groups, L1())[stream.name]
    assert after[0] < before[0] and after[0] > 0
    first = importances(other, groups, L1(reduction="first"))[stream.name]
    assert first[0] == importances(detector, groups, L1(reduction="first"))[stream.name][0]


def test_reductions_are_what_their_names_say(
    detector: Detector, groups: tuple[ChannelGroup, ...]
) -> None:
    stream = max((g for g in groups if g.prunable), key=lambda g: len(g.members))
    rows = []
    for member in stream.members:
        layer = detector.get_submodule(member.module)
        if member.side == "out" and isinstance(layer, nn.Conv2d):
            score = layer.weight.detach().abs().sum(dim=(1, 2, 3))
            rows.append((score / score.mean()).numpy())
    places = np.stack(rows)
    assert len(places) > 2
    want = {
        "mean": places.mean(axis=0),
        "sum": places.sum(axis=0),
        "max": places.max(axis=0),
        "product": places.prod(axis=0) ** (1 / len(places)),
        "first": places[0],
    }
    for reduction, values in want.items():
        importance = L1(reduction=reduction)  # type: ignore[arg-type]
        found = importances(detector, groups, importance)[stream.name]
        np.testing.assert_allclose(found.numpy(), values, rtol=1e-5)


def test_norm_scales_are_read(detector: Detector, groups: tuple[ChannelGroup, ...]) -> None:
    other = build(detector.spec, seed=3)
    with torch.no_grad():
        norm = other.get_submodule("base.conv1.1")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.copy_(torch.tensor([0.3, -0.1, 2, 0.4]))
    scores = importances(other, groups, NormScale())
    assert scores["base.conv1.0"].tolist() == pytest.approx([0.3, 0.1, 2, 0.4])


def test_chance_follows_its_seed(detector: Detector, groups: tuple[ChannelGroup, ...]) -> None:
    first, again, other = (
        importances(detector, groups, Random(seed=seed))["base.conv1.0"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_activations_are_what_the_reader_receives(
    detector: Detector, groups: tuple[ChannelGroup, ...], probe: Probe
) -> None:
    received = []
    own = build(detector.spec, seed=3).eval()
    layer = own.get_submodule("base.conv2.0")
    layer.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0].detach()))
    for batch in probe.batches:
        own(own.prepare(batch.images))
    want = torch.stack([x.abs().mean(dim=(0, 2, 3)) for x in received]).mean(dim=0)
    importance = Activation(normalise="none")
    found = importances(own, groups, importance, probe)["base.conv1.0"]
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("name", ["base.conv1.0", "base.m0.b2_2.0.res_layer.3"])
def test_taylor_is_the_slope_of_the_loss_towards_silence(name: str) -> None:
    """An oracle that knows nothing of gradients: turn the channel down a little for all readers."""
    # In double precision, and without the choice of the hardest anchors, which jumps.
    detector = build(eresfd.naver(width=4), seed=3).eval().double()
    groups = channel_groups(detector)
    group = next(g for g in groups if g.name == name)

    class Squares:
        def __call__(self, _detector: object, raw: object, _batch: object) -> object:
            total = raw.logits.square().mean() + raw.offsets.square().mean()  # type: ignore[attr-defined]
            return type("Loss", (), {"total": total})

    images = torch.randint(0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    batch = Batch(images.to(torch.uint8), [])
    detector.prepare = lambda pictures: pictures.double() - 117.0  # type: ignore[method-assign]
    probe = Probe([batch], Squares())  # type: ignore[arg-type]
    found = importances(detector, groups, Taylor(), probe)[name]

    def loss(channel: int, gain: float) -> float:
        handles = []
        for member in group.members:
            if member.side == "in":
                positions = torch.as_tensor(member.positions[channel])

                def turn_down(_: object, inputs: tuple[Tensor], at: Tensor = positions) -> Tensor:
                    x = inputs[0].clone()
                    x[:, at] *= gain
                    return x

                layer = detector.get_submodule(member.module)
                handles.append(layer.register_forward_pre_hook(turn_down))
        with torch.no_grad():
            value = Squares()(detector, detector(detector.prepare(batch.images)), batch)
        for handle in handles:
            handle.remove()
        return float(value.total)  # type: ignore[attr-defined]

    step = 1e-5
    want = [abs(loss(c, 1 + step) - loss(c, 1 - step)) / (2 * step) for c in range(group.size)]
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-3, atol=1e-6)


def test_weight_taylor_is_blind_to_filters_of_zeros(
    detector: Detector, groups: tuple[ChannelGroup, ...], probe: Probe
) -> None:
    other = build(detector.spec, seed=3)
    with torch.no_grad():
        other.get_submodule("base.conv1.0").weight[2] = 0
    scores = importances(other, groups, Taylor(of="weight"), probe)["base.conv1.0"]
    assert scores[2] == 0 and (scores[[0, 1, 3]] > 0).all()


def test_effects_that_cancel_count_only_unsigned(
    detector: Detector, groups: tuple[ChannelGroup, ...], probe: Probe
) -> None:
    signed = importances(detector, groups, Taylor(signed=True), probe)
    unsigned = importances(detector, groups, Taylor(), probe)
    assert all((signed[name] <= unsigned[name] * (1 + 1e-4) + 1e-9).all() for name in signed)
    assert any((signed[name] < 0.99 * unsigned[name]).any() for name in signed)


@pytest.mark.parametrize("importance", [Activation(), Taylor()])
@pytest.mark.parametrize("nothing", [None, Probe([], MultiBox())])
def test_without_pictures_data_driven_importances_are_refused(
    detector: Detector,
    groups: tuple[ChannelGroup, ...],
    importance: Importance,
    nothing: Probe | None,
) -> None:
    with pytest.raises(UsageError, match="has to see pictures"):
        importances(detector, groups, importance, nothing)


def test_damaged_weights_are_refused(groups: tuple[ChannelGroup, ...], detector: Detector) -> None:
    other = build(detector.spec, seed=3)
    with torch.no_grad():
        other.get_submodule("base.conv2.0").weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"base\.conv2\.0 is not finite"):
        importances(other, groups, Fpgm())


def test_without_a_norm_the_norm_scale_is_the_length_of_the_filter() -> None:
    other = build(retinaface.retinaface(), seed=0)
    other.set_submodule("fpn.merge1.1", nn.Identity())
    groups = channel_groups(other)
    group = next(group for group in groups if group.name == "fpn.merge1.0")
    scores = importances(other, groups, NormScale())
    filters = other.get_parameter("fpn.merge1.0.weight").detach()
    assert torch.allclose(scores[group.name], filters.flatten(1).norm(dim=1))


def test_a_network_without_any_norm_has_no_norm_scale() -> None:
    other = build(mtcnn.facenet(), seed=0)
    with pytest.raises(UsageError, match="mtcnn pass no batch norm"):
        importances(other, channel_groups(other), NormScale())
