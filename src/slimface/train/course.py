"""Course: follow a training to its end, with its records, its checkpoints and its best epoch."""

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import torch

from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.network import Network
from slimface.step import Context
from slimface.train.around import begin_epoch, bind
from slimface.train.criteria import AnyCriterion
from slimface.train.criterion import Criterion
from slimface.train.loop import Epoch, Epochs, epochs
from slimface.train.schedule import Schedule

log = logging.getLogger(__name__)

BeforeEpoch = Callable[[Any, int], None]

N = TypeVar("N", bound=Network)


def follow(
    detector: N,
    batches: Epochs,
    criterion: AnyCriterion | Criterion,
    schedule: Schedule,
    context: Context,
    *,
    held_out: Callable[[N], float],
    keep: Literal["best", "last"] = "last",
    before_epoch: BeforeEpoch | None = None,
) -> N:
    """Train a copy of ``detector`` in the context's folder, and return it.

    The folder gets ``training.state`` (a training that was stopped goes on from there),
    ``last.safetensors``, ``best.safetensors``, a record an epoch, and TensorBoard events.

    Args:
        detector: Stays as it was; a copy learns.
        batches: Repeatable epochs of batches.
        criterion: What to make small; one around others is bound to the copy.
        schedule: The course of the training.
        context: Where to work.
        held_out: Gives the loss on what the training does not see; the lowest is the best epoch's.
        keep: Which epoch's model to return.
        before_epoch: Called with the detector in training and the number of the epoch, from 0.
            It must do the same each time: a resumed training calls it again.
    """
    detector = copy.deepcopy(detector).to(context.device).requires_grad_(True)
    state = context.folder / "training.state"
    best = _best_so_far(context)
    at_work = bind(criterion, detector)
    watched = _Watched(batches, context, detector, at_work, before_epoch)
    with _Events(context) as events, _room_for(context.workers):
        for epoch in epochs(detector, watched, at_work, schedule, state=state):
            loss = held_out(cast(N, epoch.model))
            _record(epoch, schedule.epochs, loss, context, events)
            metrics = {
                "kind": "epoch",
                "epoch": epoch.index + 1,
                "loss": epoch.loss,
                "held_out_loss": loss,
            }
            save(epoch.model, context.folder / "last.safetensors", metrics=[metrics])
            if best is None or loss < best:
                best = loss
                save(epoch.model, context.folder / "best.safetensors", metrics=[metrics])
    return cast(N, load_checkpoint(context.folder / f"{keep}.safetensors").network)


def _record(
    epoch: Epoch, epochs: int, held_out: float, context: Context, events: "_Events"
) -> None:
    figures = {
        "loss": epoch.loss,
        **{f"loss_{name}": value for name, value in epoch.parts.items()},
        "held_out_loss": held_out,
        "learning_rate": epoch.learning_rate,
    }
    events.add(epoch.index + 1, figures)
    context.record(
        "epoch",
        {
            "epoch": epoch.index + 1,
            "epochs": epochs,
            "parts": epoch.parts,
            "pictures": epoch.pictures,
            "seconds": epoch.seconds,
            **{k: figures[k] for k in ("loss", "held_out_loss", "learning_rate")},
        },
    )
    log.info(
        "epoch %d/%d: loss %.3f, held out %.3f, %.1f pictures/s",
        epoch.index + 1,
        epochs,
        epoch.loss,
        held_out,
        epoch.pictures / max(epoch.seconds, 1e-9),
    )


@contextmanager
def _room_for(workers: int) -> Iterator[None]:
    """Leave a core to each process that prepares pictures.

    Threads of OpenMP wait for each other by spinning. On 2 cores with one worker, EResFD learns
    from 51 crops of 320 pixels a second with one thread and from 24 to 35 with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 1) - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best_so_far(context: Context) -> float | None:
    path = context.folder / "best.safetensors"
    if not path.exists() or not (context.folder / "training.state").exists():
        return None
    return float(load_checkpoint(path).metrics[0]["held_out_loss"])


class _Watched:
    """Batches under a progress bar."""

    def __init__(
        self,
        batches: Epochs,
        context: Context,
        detector: Network,
        criterion: Criterion,
        before_epoch: BeforeEpoch | None,
    ) -> None:
        self.batches = batches
        self.context = context
        self.detector = detector
        self.criterion = criterion
        self.before_epoch = before_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, index: int, *, skip: int = 0):  # type: ignore[no-untyped-def]
        begin_epoch(self.criterion, index)
        # In the middle of an epoch the saved state has what was done before it.
        if self.before_epoch is not None and not skip:
            self.before_epoch(self.detector, index)
        return self.context.track(
            self.batches.epoch(index, skip=skip), f"epoch {index + 1}", total=len(self) - skip
        )


class _Events:
    """TensorBoard event files, where tensorboard is installed."""

    def __init__(self, context: Context) -> None:
        self.folder = context.folder / "events"

    def __enter__(self) -> "_Events":
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add(self, epoch: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
