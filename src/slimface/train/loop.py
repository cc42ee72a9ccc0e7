"""The training loop: an iterator over epochs."""

import copy
import io
import math
import os
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimface.errors import CheckpointError, SlimfaceError
from slimface.files import beside
from slimface.model.network import Network
from slimface.train.around import companions
from slimface.train.criterion import Criterion
from slimface.train.schedule import Schedule


class Samples(Protocol):
    """A batch of anything that is learnt from: pictures with faces, crops with a label."""

    @property
    def images(self) -> Tensor:
        """8-bit RGB, shape ``(b, 3, height, width)``."""
        ...


class Epochs(Sized, Protocol):
    """Batches that are the same each time an epoch is asked for; ``len`` is batches an epoch."""

    def epoch(self, index: int, *, skip: int = 0) -> Iterable[Samples]: ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to, and the model as it stands after it."""

    index: int
    loss: float
    parts: dict[str, float]
    learning_rate: float
    """At the end of the epoch."""

    pictures: int
    seconds: float
    """Over all sessions, if the epoch was interrupted."""

    model: Network = field(repr=False)
    """In evaluation mode: the moving average where the schedule has one, else the detector."""


class Average:
    """The exponential moving average of a detector's weights and statistics.

    The decay rises with the number of updates, ``(1 + n) / (10 + n)`` at most, so that a short
    training is not ruled by its first steps.
    """

    def __init__(self, detector: Network, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, detector: Network) -> None:
        """Move towards ``detector`` by one step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = self.detector.state_dict(), detector.state_dict()
        for name, tensor in mine.items():
            if tensor.is_floating_point():
                tensor.lerp_(theirs[name], 1 - decay)
            else:
                tensor.copy_(theirs[name])


class Trainer:
    """Detector, optimizer, average and position: all that a resumed training needs."""

    def __init__(self, detector: Network, schedule: Schedule, criterion: Criterion) -> None:
        self.detector = detector
        self.schedule = schedule
        self.companions = companions(criterion)
        self.optimizer = schedule.make_optimizer(nn.ModuleList([detector, self.companions]))
        self.average = Average(detector, schedule.ema) if schedule.ema else None
        self.epoch = 0
        self.batch = 0
        self.sums: dict[str, float] = {}
        self.pictures = 0
        self.seconds = 0.0

    @property
    def model(self) -> Network:
        """The model to keep, in evaluation mode."""
        return self.average.detector if self.average else self.detector.eval()

    def save(self, path: Path) -> None:
        """Write beside ``path`` and rename: a kill leaves the old state or the new one, whole."""
        state: dict[str, Any] = {
            "schedule": self.schedule.fingerprint(),
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "companions": self.companions.state_dict(),
            "average": self.average.detector.state_dict() if self.average else {},
            "updates": self.average.updates if self.average else 0,
            "position": [self.epoch, self.batch, self.pictures],
            "seconds": self.seconds,
            "sums": self.sums,
            "random": torch.get_rng_state(),
        }
        # In memory first: torch's writer turns a full disk into an error of its own.
        content = io.BytesIO()
        torch.save(state, content)
        try:
            with beside(path) as part, part.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"{path}: the state of the training could not be written ({error.strerror}).\n"
                "Make room or choose another folder; the training goes on from the last state."
            ) from error

    def load(self, path: Path) -> None:
        """Go on from the state in ``path``.

        Raises:
            CheckpointError: The state is damaged, or of another model or schedule.
        """
        remedy = f"Remove {path} to start this training anew."
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["schedule"] != self.schedule.fingerprint():
                raise CheckpointError(f"{path} belongs to another schedule.\n{remedy}")
            self.detector.load_state_dict(state["detector"])
            self.companions.load_state_dict(state["companions"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.detector.load_state_dict(state["average"])
                self.average.updates = state["updates"]
        except CheckpointError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path} cannot be resumed: {reason}\n{remedy}") from error
        self.epoch, self.batch, self.pictures = state["position"]
        self.seconds, self.sums = state["seconds"], state["sums"]
        torch.set_rng_state(state["random"])

    def finish_epoch(self) -> Epoch:
        """Sum the epoch up and move on to the next."""
        batches = max(self.batch, 1)
        means = {name: value / batches for name, value in self.sums.items()}
        summary = Epoch(
            index=self.epoch,
            loss=means.pop("total", math.nan),
            parts=means,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            pictures=self.pictures,
            seconds=self.seconds,
            model=self.model,
        )
        self.epoch, self.batch, self.pictures, self.seconds, self.sums = self.epoch + 1, 0, 0, 0, {}
        return summary


def epochs(
    detector: Network,
    batches: Epochs,
    criterion: Criterion,
    schedule: Schedule,
    *,
    state: Path | None = None,
    save_seconds: float = 120,
) -> Iterator[Epoch]:
    """Train ``detector`` in place, and hand control back after every epoch.

    There are no callbacks: what has to happen between epochs goes into the body of the caller's
    loop, where it can read and change what it needs; leaving the loop ends the training.

        for epoch in epochs(detector, batches, criterion, schedule):
            log.info("epoch %d: loss %.4f", epoch.index, epoch.loss)

    Under ``torchrun`` the gradients of all processes are averaged; every process has to bring its
    own share of the batches.

    Args:
        detector: On the device to train on. It is made new layers of only between epochs, and then
            the rest of the training does not know them: start another training after surgery.
        batches: Repeatable epochs of batches.
        criterion: Called with the detector, its answer and the batch.
        schedule: The course of the training.
        state: File to save the training to, after each epoch and every ``save_seconds`` within
            one; if it exists, the training goes on from there and ends with the same weights as
            one that was never interrupted.
        save_seconds: See ``state``.

    Yields:
        A summary of each epoch, after its last update.

    Raises:
        SlimfaceError: The loss is no longer a number.
        CheckpointError: ``state`` cannot be resumed or written.
    """
    trainer = Trainer(detector, schedule, criterion)
    if state is not None and state.exists():
        trainer.load(state)
    module = _distributed(detector)
    with _shielded(detector):
        yield from _walk(trainer, module, batches, criterion, state, save_seconds)


def _walk(
    trainer: Trainer,
    module: nn.Module,
    batches: Epochs,
    criterion: Criterion,
    state: Path | None,
    save_seconds: float,
) -> Iterator[Epoch]:
    saved = time.monotonic()
    detector, schedule = trainer.detector, trainer.schedule
    while trainer.epoch < schedule.epochs:
        detector.train()
        if schedule.frozen_norms:
            _freeze_norms(detector)
        started = time.monotonic()
        for batch in batches.epoch(trainer.epoch, skip=trainer.batch):
            loss = _step(trainer, module, batch, criterion, len(batches))
            trainer.batch += 1
            trainer.pictures += len(batch.images)
            trainer.seconds += time.monotonic() - started
            started = time.monotonic()
            for name, value in loss.items():
                trainer.sums[name] = trainer.sums.get(name, 0.0) + value
            if state is not None and time.monotonic() - saved > save_seconds and _is_first():
                trainer.save(state)
                saved = time.monotonic()
        summary = trainer.finish_epoch()
        if state is not None and _is_first():
            trainer.save(state)
            saved = time.monotonic()
        yield summary


def _freeze_norms(detector: nn.Module) -> None:
    """Let batch norms use the statistics they have, and leave those alone."""
    for layer in detector.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def _step(
    trainer: Trainer, module: nn.Module, batch: Samples, criterion: Criterion, batches: int
) -> dict[str, float]:
    """One update; returns the loss and its parts."""
    detector, optimizer = trainer.detector, trainer.optimizer
    device = next(detector.parameters()).device
    rate = trainer.schedule.rate_at(trainer.epoch + trainer.batch / batches)
    for group in optimizer.param_groups:
        group["lr"] = rate
    images = detector.prepare(batch.images.to(device)).contiguous(memory_format=torch.channels_last)
    loss = criterion(detector, module(images), batch)
    values = {"total": loss.total.detach(), **loss.parts}
    numbers: list[float] = torch.stack(list(values.values())).tolist()
    if not math.isfinite(numbers[0]):
        raise SlimfaceError(
            f"The loss is {numbers[0]} in batch {trainer.batch} of epoch {trainer.epoch + 1}.\n"
            "Lower the learning rate or add warm-up epochs; the last saved state is whole."
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss.total)
    for learner in (detector, *trainer.companions):
        nn.utils.clip_grad_norm_(learner.parameters(), trainer.schedule.clip_norm)
    optimizer.step()
    if trainer.average:
        trainer.average.update(detector)
    return dict(zip(values, numbers, strict=True))


@torch.no_grad()
def validation_loss(detector: Network, batches: Iterable[Samples], criterion: Criterion) -> float:
    """Return the mean loss over ``batches``, in evaluation mode, changing nothing."""
    was_training = detector.training
    detector.eval()
    device = next(detector.parameters()).device
    losses: list[Tensor] = []
    for batch in batches:
        images = detector.prepare(batch.images.to(device))
        losses.append(criterion(detector, detector(images), batch).total)
    detector.train(was_training)
    return float(torch.stack(losses).mean()) if losses else math.nan


@contextmanager
def _shielded(detector: nn.Module) -> Iterator[None]:
    """Keep channels-last memory away from strided 1x1 convolutions on the processor.

    oneDNN (torch 2.14.1) writes past the end of the input's gradient there when the layer has no
    multiple of 16 input channels, which is what pruning makes: the process dies some batches later
    (docs/decisions/0008). Channels-last everywhere else still trains 1.4 times as fast.
    """
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].contiguous(memory_format=torch.contiguous_format),)
        )
        for layer in detector.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _distributed(detector: Network) -> nn.Module:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return detector
    # Dead parts (the unused top stage of a published variant) get no gradient.
    return nn.parallel.DistributedDataParallel(detector, find_unused_parameters=True)


def _is_first() -> bool:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not together or torch.distributed.get_rank() == 0
