"""Around: criteria around other criteria, the place for a teacher or a penalty."""

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from slimface.core.value import Value
from slimface.data.batches import Batch
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector, RawTensors
from slimface.train.criterion import Criterion, Loss, MultiBox

if TYPE_CHECKING:
    from slimface.train.criteria import AnyCriterion


class Around(Value):
    """A criterion that adds to another one what a teacher says, or a penalty.

    A subclass has a ``kind``, implements ``bound``, and is named in ``criteria.AnyCriterion``.
    """

    of: "AnyCriterion" = MultiBox()
    """What it is around."""

    def bound(self, detector: Detector, of: Criterion) -> "Bound":
        """Do what is to be done once: load the teacher, follow the channels.

        Args:
            detector: The one in training, on its device.
            of: The inner criterion, at work already.
        """
        raise NotImplementedError


class Bound(ABC):
    """A criterion around another one, at work on one detector."""

    def __init__(self, of: Criterion) -> None:
        self.of = of

    @abstractmethod
    def __call__(self, detector: Detector, raw: RawTensors, batch: Batch) -> Loss: ...

    def begin_epoch(self, index: int) -> None:  # noqa: B027  (most do not change with time)
        """Note that an epoch, counted from 0, begins or is gone on with.

        What changes with time may depend on this alone, so that a resumed training is the same.
        """


def bind(criterion: "AnyCriterion | Criterion", detector: Detector) -> Criterion:
    """Set a criterion to work on the detector that is to learn."""
    if isinstance(criterion, Around):
        return criterion.bound(detector, bind(criterion.of, detector))
    return criterion


def begin_epoch(criterion: Criterion, index: int) -> None:
    """Tell a criterion at work, and all it is around, which epoch it is."""
    while isinstance(criterion, Bound):
        criterion.begin_epoch(index)
        criterion = criterion.of


def innermost(criterion: "AnyCriterion | Criterion") -> Criterion:
    """Return the criterion that knows the annotations: what held-out pictures are judged by."""
    while isinstance(criterion, Around):
        criterion = criterion.of
    return criterion


def groups_of(detector: Detector) -> tuple[ChannelGroup, ...]:
    """Follow the channels of a detector in training, and leave it as it is."""
    return channel_groups(copy.deepcopy(detector).cpu().eval())
