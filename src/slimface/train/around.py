"""Around: criteria around other criteria, the place for a teacher or a penalty."""

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import nn

from slimface.core.value import Value
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.network import Network
from slimface.train.criterion import Criterion, Loss, MultiBox

if TYPE_CHECKING:
    from slimface.train.criteria import AnyCriterion


class Around(Value):
    """A criterion that adds to another one what a teacher says, or a penalty.

    A subclass has a ``kind``, implements ``bound``, and is named in ``criteria.AnyCriterion``.
    """

    of: "AnyCriterion" = MultiBox()
    """What it is around."""

    def bound(self, detector: Any, of: Criterion) -> "Bound":
        """Do what is to be done once: load the teacher, follow the channels.

        Args:
            detector: The one in training, on its device.
            of: The inner criterion, at work already.
        """
        raise NotImplementedError


class Bound(ABC):
    """A criterion around another one, at work on one detector."""

    companion: nn.Module | None = None
    """What learns along with the detector and is dropped afterwards, such as a teacher's adapters.

    It is part of the state of a training.
    """

    def __init__(self, of: Criterion) -> None:
        self.of = of

    @abstractmethod
    def __call__(self, detector: Any, raw: Any, batch: Any) -> Loss: ...

    def begin_epoch(self, index: int) -> None:  # noqa: B027  (most do not change with time)
        """Note that an epoch, counted from 0, begins or is gone on with.

        What changes with time may depend on this alone, so that a resumed training is the same.
        """


def bind(criterion: "AnyCriterion | Criterion", detector: Network) -> Criterion:
    """Set a criterion to work on the detector that is to learn."""
    if isinstance(criterion, Around):
        return criterion.bound(detector, bind(criterion.of, detector))
    return criterion


def begin_epoch(criterion: Criterion, index: int) -> None:
    """Tell a criterion at work, and all it is around, which epoch it is."""
    while isinstance(criterion, Bound):
        criterion.begin_epoch(index)
        criterion = criterion.of


def companions(criterion: Criterion) -> nn.ModuleList:
    """Return what learns along with the detector, outermost first."""
    found = nn.ModuleList()
    while isinstance(criterion, Bound):
        if criterion.companion is not None:
            found.append(criterion.companion)
        criterion = criterion.of
    return found


def innermost(criterion: "AnyCriterion | Criterion") -> Criterion:
    """Return the criterion that knows the annotations: what held-out pictures are judged by."""
    while isinstance(criterion, Around):
        criterion = criterion.of
    return criterion


def groups_of(detector: Network) -> tuple[ChannelGroup, ...]:
    """Follow the channels of a detector in training, and leave it as it is."""
    return channel_groups(copy.deepcopy(detector).cpu().eval())
