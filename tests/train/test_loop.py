import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from slimface.data.pictures import PictureSet
from slimface.errors import CheckpointError, SlimfaceError
from slimface.model import eresfd
from slimface.model.build import build
from slimface.model.detector import Detector
from slimface.train.criterion import MultiBox
from slimface.train.loop import Average, epochs, validation_loss
from slimface.train.schedule import Schedule
from tests.train.conftest import batches

PLAN = Schedule(epochs=3, batch_size=4, learning_rate=1e-3, ema=0.9)


def weights(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_the_loss_falls(detector: Detector, pictures: PictureSet) -> None:
    plan = Schedule(epochs=30, batch_size=4, learning_rate=1e-2, decay="none")
    losses = [e.loss for e in epochs(detector, batches(pictures), MultiBox(), plan)]
    assert losses[-1] < 0.7 * losses[0]


def test_frozen_norms_keep_their_statistics_and_learn_all_the_same(
    detector: Detector, pictures: PictureSet
) -> None:
    before = weights(detector)
    plan = PLAN.model_copy(update={"epochs": 1, "ema": 0.0, "frozen_norms": True})
    for _ in epochs(detector, batches(pictures), MultiBox(), plan):
        pass
    moved = {name for name, tensor in weights(detector).items() if not tensor.equal(before[name])}
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    assert not {name for name in moved if "running" in name or "tracked" in name}
    assert {f"{norm}.weight" for norm in norms} & moved


@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
def test_a_killed_training_ends_like_an_uninterrupted_one(
    pictures: PictureSet, detector: Detector, tmp_path: Path, stop_after: int
) -> None:
    twin = copy.deepcopy(detector)
    whole = [e.loss for e in epochs(detector, batches(pictures), MultiBox(), PLAN)]
    last = None

    class KilledError(Exception):
        pass

    seen = 0

    class Dying:
        inner = batches(pictures)

        def __len__(self) -> int:
            return len(self.inner)

        def epoch(self, index: int, *, skip: int = 0):
            nonlocal seen
            for batch in self.inner.epoch(index, skip=skip):
                if seen == stop_after:
                    raise KilledError
                seen += 1
                yield batch

    state = tmp_path / "state"
    losses = []
    with pytest.raises(KilledError):
        for epoch in epochs(twin, Dying(), MultiBox(), PLAN, state=state, save_seconds=0):
            losses.append(epoch.loss)
    fresh = build(eresfd.naver(width=4), seed=9)
    for epoch in epochs(fresh, batches(pictures), MultiBox(), PLAN, state=state):
        losses.append(epoch.loss)
        last = epoch
    assert losses == whole
    assert_same(weights(fresh), weights(detector))
    assert last is not None and last.index == 2


def test_a_state_of_another_schedule_is_refused(
    detector: Detector, pictures: PictureSet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    next(epochs(detector, batches(pictures), MultiBox(), PLAN, state=state))
    other = PLAN.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(CheckpointError, match="another schedule"):
        next(epochs(detector, batches(pictures), MultiBox(), other, state=state))


def test_a_damaged_state_is_refused(
    detector: Detector, pictures: PictureSet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"half a state")
    with pytest.raises(CheckpointError, match=r"Remove .*state"):
        next(epochs(detector, batches(pictures), MultiBox(), PLAN, state=state))


def test_a_loss_that_is_no_number_stops_the_training(
    detector: Detector, pictures: PictureSet
) -> None:
    with torch.no_grad():
        detector.loc[0].bias.fill_(torch.nan)
    with pytest.raises(SlimfaceError, match="batch 0 of epoch 1"):
        next(epochs(detector, batches(pictures), MultiBox(), PLAN))


def test_frozen_norms_keep_their_statistics_and_learn_the_rest(
    detector: Detector, pictures: PictureSet
) -> None:
    before = weights(detector)
    plan = PLAN.model_copy(update={"frozen_norms": True})
    after = next(epochs(detector, batches(pictures), MultiBox(), plan)).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("running" in name or "num_batches" in name for name in changed)
    norms = {name.removesuffix("running_var") for name in before if name.endswith("running_var")}
    assert any(f"{norm}weight" in changed for norm in norms)


def test_the_average_is_the_exponential_one(detector: Detector) -> None:
    average = Average(detector, 0.5)
    want = detector.state_dict()["loc.0.weight"].clone()
    for i in range(1, 4):
        with torch.no_grad():
            detector.loc[0].weight.add_(1)
        average.update(detector)
        decay = min(0.5, (1 + i) / (10 + i))
        want = decay * want + (1 - decay) * detector.loc[0].weight.detach()
    torch.testing.assert_close(average.detector.loc[0].weight, want)


def test_validation_changes_nothing(detector: Detector, pictures: PictureSet) -> None:
    before = weights(detector.train())
    assert validation_loss(detector, batches(pictures).epoch(0), MultiBox()) > 0
    assert detector.training
    assert_same(before, weights(detector))


def _train_in_one_of_two(rank: int, pictures: PictureSet, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    detector = build(eresfd.naver(width=4), seed=0)
    data = batches(pictures, batch_size=2, rank=rank, world_size=2)
    for _ in epochs(detector, data, MultiBox(), PLAN, state=Path(folder) / "state"):
        pass
    parameters = {name: p.detach() for name, p in detector.named_parameters()}
    torch.save(parameters, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_the_same_weights(pictures: PictureSet, tmp_path: Path) -> None:
    mp.spawn(_train_in_one_of_two, args=(pictures, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in (0, 1))
    assert_same(first, second)
    start = dict(build(eresfd.naver(width=4), seed=0).named_parameters())
    assert any(not torch.equal(first[name], start[name]) for name in first)


def test_strided_pointwise_layers_never_see_channels_last(
    detector: Detector, pictures: PictureSet
) -> None:
    """oneDNN corrupts the heap there (docs/decisions/0008)."""
    seen: list[bool] = []

    def look(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(inputs[0].is_contiguous())

    walk = epochs(detector, batches(pictures, size_px=256), MultiBox(), PLAN)
    shortcuts = [m for n, m in detector.named_modules() if n.endswith("shortcut_layer.0")]
    for shortcut in shortcuts:
        assert isinstance(shortcut, torch.nn.Conv2d) and shortcut.stride == (2, 2)
        shortcut.register_forward_hook(lambda m, i, o: look(m, i))
    next(walk)
    assert len(seen) == 3 * len(shortcuts) and all(seen)
    walk.close()
    assert not any(s._forward_pre_hooks for s in shortcuts)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_the_last_state(
    detector: Detector, pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    walk = epochs(detector, batches(pictures), MultiBox(), PLAN, state=state)
    next(walk)
    before = state.read_bytes()
    real_open = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        return real_open(Path("/dev/full") if "w" in mode else path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match="could not be written"):
        next(walk)
    assert state.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
