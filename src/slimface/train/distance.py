"""Distance: how far a student's answers are from its teacher's."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimface.core.spec import WholePicture
from slimface.errors import UsageError
from slimface.model.network import Network
from slimface.train.teacher import Maps, Teacher

_SIDE_PX = 256
"""Side of the picture on which the maps of two detectors are paired: no two sizes are alike."""


def between_classes(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened classes, ``(b, classes)`` logits each; 0 where equal.

    Source: Hinton et al., 2015, arXiv:1503.02531, section 2.
    """
    mine = F.log_softmax(student / temperature, dim=1)
    theirs = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(mine, theirs, reduction="batchmean", log_target=True)
    return divergence * temperature**2


class Sure(NamedTuple):
    """How much each anchor counts."""

    scores: Tensor
    """Shape ``(b, anchors)``: for scores."""

    faces: Tensor
    """Shape ``(b, anchors)``: for boxes, and where there are any; 0 where the teacher has none."""

    @classmethod
    def of(cls, student: Tensor, teacher: Tensor, floor: float, negatives: float) -> Self:
        """Weigh anchors by the teacher's confidence.

        Those it is sure are faces count; and of the others, as many times ``negatives`` as there
        are faces in the picture, those whose scores differ most. So the thousands of anchors on
        which both say nothing do not drown the few that matter.

        Args:
            student: Logits ``(b, anchors)``.
            teacher: Logits ``(b, anchors)``.
            floor: Score from which the teacher is sure.
            negatives: Others for each face.
        """
        confidence = teacher.sigmoid()
        sure = confidence >= floor
        wanted = (sure.sum(dim=1) * negatives).long()
        wanted = torch.minimum(wanted, (~sure).sum(dim=1))
        apart = (student.sigmoid() - confidence).abs().masked_fill(sure, -1)
        ranked = apart.topk(max(int(wanted.max()), 1), dim=1).indices
        taken = torch.arange(ranked.shape[1], device=ranked.device)[None] < wanted[:, None]
        others = torch.zeros_like(sure).scatter_(1, ranked, taken)
        faces = torch.where(sure, confidence, 0)
        return cls(torch.where(others, 1 - confidence, faces), faces)

    @property
    def total(self) -> Tensor:
        """What sums over anchors are divided by: the faces of the batch, by confidence."""
        return self.faces.sum().clamp(min=1)


def between_scores(student: Tensor, teacher: Tensor, sure: Sure, temperature: float) -> Tensor:
    """Return the divergence of softened scores, logits ``(b, anchors)`` each; 0 where equal."""
    goal = (teacher / temperature).sigmoid()
    wrong = F.binary_cross_entropy_with_logits(student / temperature, goal, reduction="none")
    least = F.binary_cross_entropy_with_logits(teacher / temperature, goal, reduction="none")
    return ((wrong - least) * sure.scores).sum() / sure.total * temperature**2


def between_offsets(student: Tensor, teacher: Tensor, sure: Sure) -> Tensor:
    """Return the smooth L1 distance of offsets ``(b, anchors, k)`` on the teacher's faces."""
    apart = F.smooth_l1_loss(student, teacher, reduction="none").sum(dim=2)
    # Where the teacher has no face its offsets may be anything, infinite too.
    return torch.where(sure.faces > 0, apart * sure.faces, 0).sum() / sure.total


class Features:
    """The distance between what the heads of student and teacher read.

    The student's maps pass an adapter each, a convolution of one pixel, which has as many outputs
    as the teacher's map and learns along. Maps of one size are compared.

    Source: Romero et al., "FitNets", ICLR 2015, arXiv:1412.6550, section 2.2 (adapters).

    Raises:
        UsageError: The two have no map of one size, or several processes train.
    """

    def __init__(self, student: Network, teacher: Teacher) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise UsageError(
                "Adapters of features learn in one process only.\n"
                "Leave feature_weight at 0, or train without torchrun."
            )
        self.maps = Maps(student)
        mine, theirs = _sizes(student, self.maps), _sizes(teacher.network, teacher.maps)
        self.pairs = _pairs(mine, theirs)
        if not self.pairs:
            raise UsageError(
                f"{teacher.network.spec.name} and {student.spec.name} have no map of one size.\n"
                "Leave feature_weight at 0."
            )
        device = next(student.parameters()).device
        with torch.random.fork_rng(devices=[]):
            # Without touching torch's generator: the rest of the training stays what it was.
            torch.manual_seed(0)
            adapters = [_adapter(mine[i], theirs[j]) for i, j in self.pairs]
        self.adapters = nn.ModuleList(adapters).to(device)

    def __call__(
        self,
        said: Mapping[str, Tensor],
        masks: Mapping[tuple[int, int], Tensor] | None = None,
    ) -> Tensor:
        """Return the mean distance of the student's last pass from the teacher's answer.

        Args:
            said: ``teacher.answer`` to the same pictures.
            masks: How much each cell counts, ``(b, 1, rows, columns)``, by map size.
        """
        read = self.maps.take()
        distances = []
        for adapter, (i, j) in zip(self.adapters, self.pairs, strict=True):
            goal = said[f"map {j}"]
            apart = (adapter(read[i]) - goal).square() / goal.square().mean().clamp(min=1e-12)
            if masks is None:
                distances.append(apart.mean())
            else:
                mask = masks[goal.shape[2], goal.shape[3]]
                here = (apart.mean(dim=1, keepdim=True) * mask).sum()
                distances.append(here / mask.sum().clamp(min=1))
        return torch.stack(distances).mean()


def _sizes(network: Network, maps: Maps) -> list[tuple[int, ...]]:
    """Channels, rows and columns of what the heads read."""
    rule = network.spec.preprocess
    size = (_SIDE_PX, _SIDE_PX)
    if isinstance(rule, WholePicture):
        size = rule.height_px, rule.width_px
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, *size).to(next(network.parameters())))
    network.train(training)
    return [tuple(read.shape[1:]) for read in maps.take()]


def _pairs(mine: list[tuple[int, ...]], theirs: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Which map of the teacher each map of the student is compared with."""
    free = dict(enumerate(theirs))
    pairs = []
    for i, shape in enumerate(mine):
        j = next((j for j, other in free.items() if other[1:] == shape[1:]), None)
        if j is not None:
            del free[j]
            pairs.append((i, j))
    return pairs


def _adapter(mine: tuple[int, ...], theirs: tuple[int, ...]) -> nn.Module:
    if len(mine) == 1:
        return nn.Linear(mine[0], theirs[0], bias=False)
    return nn.Conv2d(mine[0], theirs[0], 1, bias=False)
