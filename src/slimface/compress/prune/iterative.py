"""Iterative pruning: prune a little, train a little, until the rate or the budget is reached."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from slimface.compress.prune.allocate import Allocator, PerGroup, Scores
from slimface.compress.prune.step import Prune
from slimface.core.budget import Budget
from slimface.core.value import Value
from slimface.files import write_text
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.cost import cost_model
from slimface.model.detector import Detector
from slimface.order import Terms
from slimface.step import Context
from slimface.train.step import Train

log = logging.getLogger(__name__)

Learn = Callable[[Detector, Context], Detector]
Stays = Mapping[str, Any]
"""The channels of the first model that are still there, ascending, by the name of the group."""


class InRounds(Value):
    """What all pruning in rounds has in common."""

    prune: Prune
    """What is removed in the end, and by which importance."""

    rounds: int = Field(default=5, gt=0)
    rise: Literal["linear", "cubic"] = "linear"
    """``linear``: each round removes equally much. ``cubic``: the first ones remove most (Zhu and
    Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, equation 1)."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for budget in self.prune.allocator.budgets:
            if self.rounds > 1 and budget.is_measured and not budget.relative:
                raise ValueError(
                    f"{budget} cannot be divided into rounds before the start is measured; write "
                    "it as a share, like '-30% ms@onnxruntime:1t:640x480'"
                )
        return self

    def walk(self, detector: Detector, context: Context, learn: Learn, epochs: int) -> Detector:
        """Return the detector after all rounds.

        Args:
            detector: Stays as it was.
            context: Each round works in a folder of its own below this one.
            learn: Trains what a round has left.
            epochs: How many epochs that takes, for the records.
        """
        groups = self.groups(detector)
        # What cannot be reached is said now, not after the training.
        scores = self.score(detector, groups, context)
        last = self.prune.choose(detector, groups, context, scores=scores)
        current, stays = detector, _all(groups)
        for number in range(1, self.rounds + 1):
            folder = context.folder / f"round-{number:02d}"
            folder.mkdir(exist_ok=True)
            inside = replace(context, folder=folder)
            if not (folder / "done.json").exists():
                narrow, after = self._cut(number, detector, groups, current, stays, inside)
                save(learn(narrow, inside), folder / "model.safetensors")
                kept = {name: channels.tolist() for name, channels in after.items()}
                write_text(folder / "done.json", json.dumps(kept))
            stays = _read(json.loads((folder / "done.json").read_text(encoding="utf-8")))
            current = load_checkpoint(folder / "model.safetensors").detector
            self._tell(number, epochs, inside, context)
        gone = {group.name: group.size - len(stays[group.name]) for group in groups}
        removed = {name: gone[name] for name in last.removed}
        self.prune.record(
            detector, current, groups, replace(last, removed=removed, keep=stays), context
        )
        return current

    def groups(self, detector: Detector) -> tuple[ChannelGroup, ...]:
        """Return the channel groups of a detector."""
        return channel_groups(detector)

    def score(
        self, detector: Detector, groups: tuple[ChannelGroup, ...], context: Context
    ) -> Scores:
        """Value every channel."""
        return self.prune.score(detector, groups, context)

    def _cut(
        self,
        number: int,
        first: Detector,
        groups: tuple[ChannelGroup, ...],
        current: Detector,
        stays: Stays,
        context: Context,
    ) -> tuple[Detector, Stays]:
        """Remove what this round removes; return the model and what is left."""
        done = number / self.rounds
        share = done if self.rise == "linear" else 1 - (1 - done) ** 3
        prune = self.prune.model_copy(
            update={"allocator": self._part(first, groups, share if number < self.rounds else 1)}
        )
        now = self.groups(current)
        # Seen from the first model, so that the rounds add up: what is gone is worth nothing, and
        # goes first.
        scores = _as_of_first(groups, stays, self.score(current, now, context))
        chosen = prune.choose(first, groups, context, scores=scores)
        keep = {}
        after = dict(stays)
        for name, channels in chosen.keep.items():
            after[name] = np.intersect1d(stays[name], channels)
            if len(after[name]) < len(stays[name]):
                keep[name] = np.flatnonzero(np.isin(stays[name], after[name]))
        log.info("round %d of %d", number, self.rounds)
        return self.prune.remove(current, keep, now, context), after

    def _part(self, first: Detector, groups: tuple[ChannelGroup, ...], share: float) -> Allocator:
        """The allocator of a part of what is to be removed in all."""
        allocator = self.prune.allocator
        if share == 1:
            return allocator
        if allocator.budget is not None:
            parts = [self._part_of(one, first, groups, share) for one in allocator.budgets]
            return allocator.model_copy(update={"budget": parts[0], "also": tuple(parts[1:])})
        if isinstance(allocator, PerGroup):
            rates = {name: share * rate for name, rate in allocator.rates.items()}
            return allocator.model_copy(update={"rates": rates})
        assert allocator.rate is not None
        return allocator.model_copy(update={"rate": share * allocator.rate})

    def _part_of(
        self, budget: Budget, first: Detector, groups: tuple[ChannelGroup, ...], share: float
    ) -> Budget:
        if budget.relative:
            return budget.model_copy(update={"amount": share * budget.amount})
        assert not budget.is_measured
        costs = cost_model(first, groups, *self.prune.input_px())
        before = costs.count(budget.unit, costs.sizes)
        amount = before - share * (before - budget.amount)
        return budget.model_copy(update={"amount": amount})

    def _tell(self, number: int, epochs: int, inside: Context, context: Context) -> None:
        """Bring a round's records to the step's, with epochs counted through."""
        for line in (inside.folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            record = entry["record"] | {"round": number}
            if entry["kind"] == "epoch":
                record["epoch"] += (number - 1) * epochs
                record["epochs"] = self.rounds * epochs
            context.record(entry["kind"], record)


class IterativePrune(InRounds):
    """Remove channels in rounds, and train after each: what is left is valued again each time.

    After the last round exactly as much is gone as ``prune`` alone would take. Rounds are kept, and
    a killed run goes on in the round, and the batch, where it stopped.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", ICLR 2017, arXiv:1611.06440, section 2: the loop of rank, remove, fine-tune.
    """

    kind: Literal["iterative_prune"] = "iterative_prune"
    train: Train
    """What follows each removal; its optimizer and its learning rate begin anew each time."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return self.prune.terms() | self.train.terms()

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the trained detector with fewer channels.

        Raises:
            BudgetError: The budget cannot be met.
            TraceError: The channels of the detector cannot be followed.
            UsageError: There are no pictures with faces to learn from.
        """
        return self.walk(detector, context, self.train, self.train.schedule.epochs)


def _all(groups: tuple[ChannelGroup, ...]) -> Stays:
    return {group.name: np.arange(group.size) for group in groups}


def _read(kept: Mapping[str, Any]) -> Stays:
    return {name: np.asarray(channels, dtype=np.intp) for name, channels in kept.items()}


def _as_of_first(groups: tuple[ChannelGroup, ...], stays: Stays, scores: Scores) -> Scores:
    """Scores of all channels that the first model had: nothing for those that are gone."""
    result = {}
    for group in groups:
        if not group.prunable:
            continue
        values = torch.zeros(group.size)
        # A group of one channel that is left cannot be cut, and has no score.
        found = scores.get(group.name, torch.ones(len(stays[group.name])))
        values[torch.as_tensor(stays[group.name])] = found.cpu().float().clamp(min=1e-30)
        result[group.name] = values
    return result
