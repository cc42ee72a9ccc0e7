"""B-FPGM as it was published, each of its defects a switch, so that papers can be compared."""

import copy
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field
from torch import nn

from slimface.compress.prune.allocate import PerGroup, choose
from slimface.compress.prune.importance import Fpgm, importances
from slimface.compress.prune.patterns import PRESETS, Preset
from slimface.compress.search.space import cuttable
from slimface.compress.search.study import JOURNAL, finished, open_study, owner, running
from slimface.core.value import Value
from slimface.data.batches import Batches
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment, PlainAugment, S3fdAugment
from slimface.errors import BudgetError, UsageError
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.checkpoint import fingerprint
from slimface.model.cost import cost_model
from slimface.model.detector import Detector
from slimface.model.surgery import remove_channels, zero_filters_
from slimface.order import FLOAT, LEARNT, NORMS, ZEROED, Terms
from slimface.step import Context
from slimface.train.criterion import MultiBox
from slimface.train.loop import epochs, validation_loss
from slimface.train.schedule import Schedule
from slimface.train.step import split

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)

REJECTED = -500.0
"""Value of an evaluation that is off the target, and of which nothing was learnt."""

_HIGHEST_RATE = 0.98
_HALVINGS = 40


class Defects(Value):
    """What is wrong with the published search; each true as published."""

    rejects: bool = True
    """Draws off the target are thrown away, and count. False: all rates of a draw are multiplied by
    the factor that meets the target."""

    noisy: bool = True
    """The hold-out is augmented at random, anew each time. False: the same whole pictures."""

    uncoupled: bool = True
    """Each layer zeroes filters of its own choice, so that residual streams keep nearly all their
    channels and little can be removed. False: whole coupled groups."""

    idle: bool = True
    """Layers on which no prediction depends count as pruned, for free. False: they stay whole."""

    rounds_down: bool = True
    """10 % of 8 filters is none. False: the nearest number."""

    @classmethod
    def none(cls) -> Self:
        """Return the search as it was meant."""
        return cls(**dict.fromkeys(cls.model_fields, False))


class BFpgm(Value):
    """Search a rate for each of six groups of layers by a Gaussian process, one epoch a candidate.

    Every evaluation zeroes filters, trains one epoch in which they are free to grow back, and takes
    the loss on a part of the training pictures. What is searched is the share of parameters that
    are zero: not work, and not time.

    Source: Kaparinos and Mezaris, "B-FPGM: Lightweight Face Detection via Bayesian-Optimized Soft
    FPGM Pruning", WACV Workshops 2025, arXiv:2501.16917, section 3, and its published script.
    """

    kind: Literal["b_fpgm"] = "b_fpgm"
    target: float = Field(default=0.5, gt=0, lt=1)
    """Share of all parameters that are to be zero."""

    groups: Preset = "eresfd-script"
    defects: Defects = Defects()
    random: int = Field(default=60, ge=1)
    """Evaluations at random rates, after a first one at the target."""

    guided: int = Field(default=940, ge=0)
    """Evaluations where the process promises most."""

    margin: float = Field(default=0.2, ge=0)
    """A rate is at most this above the target."""

    tolerance: float = Field(default=0.04, gt=0)
    """How far from the target a draw may be; also what the first one adds to it."""

    penalty: float = 5.0
    """Of the loss, for each unit below the target."""

    share: float = Field(default=0.2, gt=0, lt=0.5)
    """Of the training pictures, to take the loss on."""

    size_px: int = Field(default=640, ge=64)
    schedule: Schedule = Schedule(
        epochs=1, batch_size=16, optimizer="adam", weight_decay=1e-5, decay="none"
    )
    criterion: MultiBox = MultiBox()
    minutes: float | None = Field(default=None, gt=0)
    """Begin no further evaluation after this time, in this process."""

    storage: str = ""
    """URL of a database; empty: a file in the run folder."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(
            needs=frozenset({FLOAT, LEARNT, NORMS}),
            leaves=frozenset({ZEROED} if self.defects.uncoupled else ()),
            tasks=frozenset({"detection"}),
        )

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the detector pruned by the best rates: with zeroed filters as published, or cut.

        Raises:
            BudgetError: No rates meet the target.
            ProtocolError: The study is of another model, other pictures or other settings.
            UsageError: There are too few pictures, or the groups are of another architecture.
        """
        rates, value, counts = self.find(detector, context)
        lab = _Lab.of(self, detector, context)
        pruned = lab.zeroed(rates)
        context.record(
            "b_fpgm",
            {
                "target": self.target,
                "rates": rates,
                "value": value,
                "zeros": lab.zeros(pruned),
                "defects": self.defects.model_dump(),
                **counts,
            },
        )
        return pruned if self.defects.uncoupled else lab.cut(rates)

    def find(
        self, detector: Detector, context: Context
    ) -> tuple[dict[str, float], float, dict[str, int]]:
        """Return the best rates, their value, and how many evaluations there were and were lost."""
        lab = _Lab.of(self, detector, context)
        study = self._open(lab, context)
        wanted = 1 + self.random + self.guided
        left = max(wanted - len(finished(study)), 0)
        for _ in context.track(self._evaluations(study, lab, wanted), "b-fpgm", total=left):
            pass
        done = [(float(trial.values[0]), trial) for trial in finished(study)]
        value, best = max(done, key=lambda pair: pair[0], default=(REJECTED, None))
        if best is None or value <= REJECTED:
            raise BudgetError(
                f"None of {len(done)} evaluations was within {self.tolerance:g} of the target "
                f"{self.target:g}.\nAllow more of them, or switch off the defect 'rejects'."
            )
        lost = sum(one <= REJECTED for one, _ in done)
        counts = {"evaluations": len(done), "lost": lost}
        return dict(best.user_attrs["rates"]), value, counts

    def _open(self, lab: "_Lab", context: Context) -> "Study":
        free: dict[str, Any] = {"random": 1, "guided": 0, "minutes": None, "storage": ""}
        study = open_study(
            self.storage or context.folder / JOURNAL,
            "b-fpgm",
            {
                "model": fingerprint(lab.detector),
                "pictures": lab.learn.fingerprint() + lab.check.fingerprint(),
                "settings": self.model_copy(update=free).fingerprint(),
            },
            ("maximize",),
        )
        if not study.get_trials(deepcopy=False):
            first = min(self.target + self.tolerance, self.highest)
            study.enqueue_trial(dict.fromkeys(lab.names, first))
        return study

    @property
    def highest(self) -> float:
        """The largest rate that is drawn."""
        return min(_HIGHEST_RATE, self.target + self.margin)

    def _evaluations(self, study: "Study", lab: "_Lab", wanted: int) -> Iterator[int]:
        from optuna.trial import TrialState

        from slimface.compress.search.ucb import UcbSampler

        started = time.monotonic()
        while (done := len(finished(study)) + len(running(study))) < wanted:
            if self.minutes is not None and time.monotonic() - started > 60 * self.minutes:
                return
            study.sampler = UcbSampler(lab.context.seed + done, 1 + self.random)
            trial = study.ask()
            for name, note in owner().items():
                trial.set_user_attr(name, note)
            try:
                drawn = {name: trial.suggest_float(name, 0.0, self.highest) for name in lab.names}
                rates, zeros, value = lab.evaluate(drawn, trial.number)
            except BaseException:
                study.tell(trial, state=TrialState.FAIL)
                raise
            trial.set_user_attr("rates", rates)
            trial.set_user_attr("zeros", zeros)
            study.tell(trial, value)
            log.info(
                "evaluation %d of %d: zeros %.1f %%, %.3f", done + 1, wanted, 100 * zeros, value
            )
            yield trial.number


@dataclass(frozen=True, slots=True, eq=False)
class _Lab:
    """What all evaluations have in common."""

    step: BFpgm
    detector: Detector
    groups: tuple[ChannelGroup, ...]
    names: tuple[str, ...]
    learn: PictureSet
    check: PictureSet
    context: Context

    @classmethod
    def of(cls, step: BFpgm, detector: Detector, context: Context) -> Self:
        if context.source is None:
            raise UsageError("A search needs pictures.\nName them with --data DIR.")
        learn, check = split(context.source.pictures("train").with_faces(), step.share)
        detector = detector.to(context.device)
        lab = cls(
            step,
            detector,
            channel_groups(detector),
            tuple(PRESETS[step.groups]),
            learn,
            check,
            context,
        )
        if not lab._layers():
            raise UsageError(
                f"The groups {step.groups!r} name no layer of {detector.spec.name}.\n"
                f"Choose one of {', '.join(PRESETS)}, or search without the preset."
            )
        return lab

    def evaluate(
        self, drawn: Mapping[str, float], number: int
    ) -> tuple[dict[str, float], float, float]:
        """Return the rates in the end, the share of zeros, and the value."""
        step = self.step
        rates = dict(drawn) if step.defects.rejects else self._on_target(drawn)
        pruned = self.zeroed(rates)
        zeros = self.zeros(pruned)
        if abs(zeros - step.target) >= step.tolerance:
            return rates, zeros, REJECTED
        torch.manual_seed(self.context.seed)
        batches = self._batches(self.learn, S3fdAugment(), number)
        for _ in epochs(pruned.requires_grad_(True), batches, step.criterion, step.schedule):
            pass
        batches.close()
        loss = self._loss(pruned, number)
        penalty = max(step.target - zeros, 0.0)
        return rates, zeros, -loss - step.penalty * penalty

    def zeroed(self, rates: Mapping[str, float]) -> Detector:
        """Return a copy whose least important filters are zero."""
        pruned = copy.deepcopy(self.detector)
        if not self.step.defects.uncoupled:
            zero_filters_(pruned, self._keep(rates), groups=self.groups)
            return pruned
        score = Fpgm()
        with torch.no_grad():
            for name, group in self._layers().items():
                layer = pruned.get_submodule(name)
                assert isinstance(layer, nn.Conv2d)
                exact = rates.get(group, 0.0) * len(layer.weight)
                # As published, without the half a thousandth that forgives binary fractions.
                count = int(exact) if self.step.defects.rounds_down else int(exact + 0.5)
                if count:
                    gone = score(layer.weight.flatten(1)).argsort(stable=True)[:count]
                    for parameter in layer.parameters():
                        parameter[gone] = 0
        return pruned

    def cut(self, rates: Mapping[str, float]) -> Detector:
        """Return the detector without the channels of least importance."""
        return remove_channels(self.detector, self._keep(rates), groups=self.groups)

    def zeros(self, detector: Detector) -> float:
        """Return the share of all parameters that are zero."""
        values = list(detector.parameters())
        return float(sum((v == 0).sum() for v in values)) / sum(v.numel() for v in values)

    def _keep(self, rates: Mapping[str, float]) -> Any:
        costs = cost_model(self.detector, self.groups, 64, 64)
        free = cuttable(self.groups, PRESETS[self.step.groups])
        rounding: Literal["down", "nearest"] = (
            "down" if self.step.defects.rounds_down else "nearest"
        )
        named = {name: rates[name] for name in free}
        rule = PerGroup(rates=named, groups=free, rounding=rounding)
        scores = importances(self.detector, self.groups, Fpgm())
        return choose(scores, rule(self.groups, scores, costs))

    def _layers(self) -> dict[str, str]:
        """Convolution -> the group that names it."""
        idle = {
            member.module
            for group in self.groups
            if group.idle and not self.step.defects.idle
            for member in group.members
            if member.side == "out"
        }
        return {
            name: group
            for name, layer in self.detector.named_modules()
            if isinstance(layer, nn.Conv2d) and name not in idle
            for group, beginnings in PRESETS[self.step.groups].items()
            if any(_begins(name, one) for one in beginnings)
        }

    def _on_target(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """Multiply all rates by the factor that meets the target."""
        low, high = 0.0, _HIGHEST_RATE / max(*drawn.values(), 1e-6)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self.zeros(self.zeroed(_scaled(drawn, middle))) < self.step.target:
                low = middle
            else:
                high = middle
        return _scaled(drawn, high)

    def _batches(self, pictures: PictureSet, augment: Augment, seed: int) -> Batches:
        step = self.step
        size = min(step.schedule.batch_size, max(len(pictures), 1))
        return Batches(
            pictures,
            augment=augment,
            size_px=step.size_px,
            batch_size=size,
            seed=self.context.seed + 1000 * seed,
            workers=self.context.workers,
        )

    def _loss(self, detector: Detector, number: int) -> float:
        noisy = self.step.defects.noisy
        augment: Augment = S3fdAugment() if noisy else PlainAugment(mirror=False)
        batches = self._batches(self.check, augment, number if noisy else 0)
        try:
            loss = validation_loss(detector, batches.epoch(0), self.step.criterion)
        finally:
            batches.close()
        return loss if math.isfinite(loss) else -REJECTED


def _scaled(rates: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: min(rate * factor, _HIGHEST_RATE) for name, rate in rates.items()}


def _begins(name: str, beginning: str) -> bool:
    stem = beginning.rstrip("*")
    return (
        name == beginning
        or name.startswith(beginning + ".")
        or (stem != beginning and name.startswith(stem))
    )
