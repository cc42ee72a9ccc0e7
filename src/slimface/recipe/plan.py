"""Plan: what a recipe will do, and what its model will cost after each step, before hours pass."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimface.compress.prune.allocate import PerGroup, Uniform
from slimface.compress.prune.fade import FadeOut
from slimface.compress.prune.importance import Random, importances
from slimface.compress.prune.iterative import IterativePrune
from slimface.compress.prune.net import PruneNet
from slimface.compress.prune.soft import SoftPrune
from slimface.compress.prune.step import Prune
from slimface.compress.quantize.qat import Qat
from slimface.compress.quantize.step import Quantize
from slimface.compress.search.bfpgm import BFpgm
from slimface.compress.search.soft import SoftSearch
from slimface.compress.search.step import Search
from slimface.compress.shrink.step import Shrink
from slimface.core.budget import parse_budget
from slimface.core.spec import ModelSpec
from slimface.data.labelled import CropFlip
from slimface.evaluate.step import Evaluate
from slimface.export.step import Export
from slimface.loading import CHECKPOINT
from slimface.model.build import build
from slimface.model.cascade import net_of, with_nets
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.checkpoint import load_checkpoint
from slimface.model.detector import Detector
from slimface.model.network import Network
from slimface.model.surgery import remove_channels
from slimface.recipe.check import check
from slimface.recipe.classes import classifier_spec, is_classifier
from slimface.recipe.cost import footprint
from slimface.recipe.recipe import AnyStep, Recipe
from slimface.recipe.start import spec_of
from slimface.step import Context
from slimface.train.nets import TrainNet
from slimface.train.step import Train

CLASSES = 37
"""Classes of a source that does not say how many it has without being read: those of pets."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, and the model as it will be after it."""

    kind: str
    says: str
    parameters: int
    macs: int
    input_px: tuple[int, int]
    """Height and width of the input that MACs are counted for."""

    exact: bool
    """Whether the costs follow from the widths alone; where channels compete between groups, or
    are measured, they are near what they will be."""


def plan(recipe: Recipe) -> list[Planned]:
    """Return the steps of a recipe with the costs to expect; no weights and no pictures are read.

    Raises:
        BudgetError: A budget cannot be met.
        SlimfaceError: The model cannot be built, or not be followed.
    """
    check(recipe, teachers_open=False)
    detector, exact = _start(recipe), True
    lines = [_line("start", recipe.model, detector, exact=True)]
    for step in recipe.steps:
        after, sure = _after(step, detector)
        exact = exact and sure
        detector = after
        lines.append(_line(step.kind, _says(step), detector, exact=exact))
    return lines


def _start(recipe: Recipe) -> Any:
    path = Path(recipe.model)
    if path.suffix == CHECKPOINT:
        return load_checkpoint(path).network
    return build(_spec(recipe), seed=recipe.seed)


def _spec(recipe: Recipe) -> ModelSpec:
    """The spec of the start; a new classifier has as many outputs as the source has classes."""
    if not is_classifier(recipe.model):
        return spec_of(recipe.model)
    count = getattr(recipe.source, "classes", CLASSES)
    return classifier_spec(recipe.model, tuple(f"class {i}" for i in range(count)))


def _after(step: AnyStep, detector: Any) -> tuple[Any, bool]:
    """The detector as wide as the step will leave it, and whether that is certain."""
    match step:
        case Prune():
            return _cut(step, detector)
        case IterativePrune() | SoftPrune() | FadeOut():
            return _cut(step.prune, detector)
        case PruneNet():
            net = net_of(detector, step.train.net, where=detector.spec.name)
            narrow, sure = _cut(step.cut_of(net), net, step.groups(net))
            return with_nets(detector, {step.train.net: narrow}), sure
        case SoftSearch():
            return _searched(step.search, detector)
        case BFpgm():
            return _searched(step, detector)
        case Search():
            return _cut(Prune(allocator=Uniform(budget=step.budgets[0])), detector)[0], False
        case Shrink():
            # Carriers may stay, which only the weights can tell.
            return detector, False
        case _:
            return detector, True


def _cut(
    step: Prune, detector: Detector, groups: tuple[ChannelGroup, ...] | None = None
) -> tuple[Detector, bool]:
    """Cut by chance: how many channels each group loses does not depend on which."""
    groups = groups or channel_groups(detector)
    scores = importances(detector, groups, Random())
    sure = step.allocator.kind in ("uniform", "per_group")
    with TemporaryDirectory() as folder:
        chosen = step.choose(detector, groups, Context(folder=Path(folder)), scores=scores)
    return remove_channels(detector, chosen.keep, groups=groups), sure


def _searched(step: BFpgm, detector: Detector) -> tuple[Detector, bool]:
    """About what a search may leave: the rates it finds are not known yet."""
    budget = parse_budget(f"-{100 * step.target:g}% params")
    return _cut(Prune(allocator=Uniform(budget=budget)), detector)[0], False


def _line(kind: str, says: str, detector: Network, *, exact: bool) -> Planned:
    counted = footprint(detector)
    size = counted.height_px, counted.width_px
    return Planned(kind, says, counted.parameters, counted.macs, size, exact)


def _says(step: AnyStep) -> str:
    """The settings that tell a step from others of its kind, in a few words."""
    match step:
        case Prune():
            return _amount(step)
        case IterativePrune():
            return f"{_amount(step.prune)}, in {step.rounds} rounds of {_epochs(step.train)}"
        case SoftPrune():
            return f"{_amount(step.prune)}, every {step.every} of {_epochs(step.train)}"
        case FadeOut():
            return f"{_amount(step.prune)}, over {_epochs(step.train)}"
        case PruneNet():
            rounds = f"{step.rounds} rounds of {_epochs(step.train)}"
            return f"{step.train.net}: {_amount(step.prune)}, in {rounds}"
        case SoftSearch():
            found = f"{step.search.target:.0%} of the parameters by {_evaluations(step.search)}"
            return f"{found}, every {step.every} of {_epochs(step.train)}"
        case BFpgm():
            return f"{step.target:.0%} of the parameters by {_evaluations(step)}"
        case Search():
            budgets = ", ".join(str(budget) for budget in step.budgets)
            return f"{budgets} by {step.trials} candidates"
        case Train():
            return _epochs(step)
        case TrainNet():
            return f"{step.net}: {_epochs(step)}"
        case Evaluate():
            return f"of the {step.of}"
        case Export():
            return step.file
        case Qat():
            net = f"{step.train.net}: " if isinstance(step.train, TrainNet) else ""
            return f"{net}with rounding, {_epochs(step.train)}"
        case Quantize():
            return f"eight bits for {step.runtime}, {step.pictures} pictures"
        case Shrink():
            return "folded" if step.fold else "exact"
        case _:
            return ""


def _amount(step: Prune) -> str:
    allocator = step.allocator
    if allocator.budget is not None:
        amount = str(allocator.budget)
    elif isinstance(allocator, PerGroup):
        amount = ", ".join(f"{name} {rate:.0%}" for name, rate in allocator.rates.items())
    else:
        amount = f"{allocator.rate:.0%} of the channels"
    return f"{amount} by {step.importance.kind}, {allocator.kind}"


def _evaluations(step: BFpgm) -> str:
    return f"{1 + step.random + step.guided} evaluations"


def _epochs(step: Train | TrainNet) -> str:
    # A net of a cascade and a classifier have a size of their own.
    if isinstance(step, TrainNet) or isinstance(step.augment, CropFlip):
        return f"{step.schedule.epochs} epochs"
    return f"{step.schedule.epochs} epochs at {step.size_px} px"
