"""Distill: learn what a teacher says, beside what the annotations say."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from slimface.core.spec import CASCADE_NETS, DetectorSpec
from slimface.data.batches import Batch
from slimface.errors import UsageError
from slimface.model.cascade import check_rules, net_of
from slimface.model.detector import Detector, RawTensors
from slimface.model.mtcnn import Stage
from slimface.model.network import Network
from slimface.model.opening import open_network
from slimface.train.around import Around, Bound
from slimface.train.criterion import Criterion, Loss
from slimface.train.crops import CropBatch
from slimface.train.distance import (
    Features,
    Sure,
    between_classes,
    between_offsets,
    between_scores,
)
from slimface.train.teacher import Teacher, check_pair, same_cells


class Distill(Around):
    """The distance from a teacher's answers, beside the criterion it is around.

    The loss is ``(1 - weight) * of + weight * distance``. The distance of a classifier is the
    divergence of softened classes; of a detector that of softened scores, on the anchors the
    teacher is sure of and on those where the student is furthest off, plus that of the boxes,
    each weighted by the teacher's confidence. Where the anchors of the two lie in different
    places, the faces that the teacher finds are taken for annotations instead. A net of a cascade
    learns from the same net of another: the crops of a batch are for it what anchors are.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531,
    section 2 (temperature, and its square as a factor); Chen et al., "Learning Efficient Object
    Detection Models with Knowledge Distillation", NeurIPS 2017, section 3; the mask on features
    after Wang et al., "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR
    2019, arXiv:1906.03609. T = 3 and 0.9 as in the survey of face compression (arXiv:2408.08250).
    """

    kind: Literal["distill"] = "distill"
    teacher: str
    """A name of the zoo, or a checkpoint; in a recipe also ``step:N``, what step N has made, where
    ``step:0`` is the model that the recipe starts from."""

    weight: float = Field(default=0.9, ge=0, le=1)
    """The teacher's share of the loss. With 0 the training is as without a teacher."""

    temperature: float = Field(default=3.0, gt=0)
    """What logits are divided by before they become scores: higher listens to small ones, too."""

    box_weight: float = Field(default=1.0, ge=0)
    """Of the distance of the offsets, and of the landmarks where both have them."""

    negatives_per_positive: float = Field(default=3.0, ge=0)
    """Anchors of which the teacher is not sure, for each of which it is: those furthest off."""

    floor: float | None = Field(default=None, ge=0, le=1)
    """Score from which the teacher is sure; None: from which its spec takes it for a face."""

    feature_weight: float = Field(default=0.0, ge=0)
    """Of the distance between what the heads of the two read, where the teacher sees faces. An
    adapter for each map learns along, and is dropped afterwards."""

    cache_mb: int = Field(default=0, ge=0)
    """Memory for answers of the teacher, by picture. It only helps where an augmentation gives the
    same picture twice; a resumed training then differs in the last digits."""

    def bound(self, detector: Any, of: Criterion) -> Bound:
        """Open the teacher and see whether it fits.

        Raises:
            UsageError: It has another task, other classes, other landmarks, or no common map.
            MissingError, CheckpointError: It cannot be opened.
        """
        network = open_network(self.teacher)
        check_pair(detector, network)
        if isinstance(detector, Stage):
            network = self._same_net(detector, network)
        device = next(detector.parameters()).device
        return _Taught(of, self, detector, Teacher(network, device, cache_mb=self.cache_mb))

    def _same_net(self, stage: Stage, teacher: Any) -> Stage:
        """Return the net of the teacher that sees what the student sees."""
        if self.feature_weight:
            raise UsageError(
                f"{stage.spec.name} is a net of a cascade; only answers are compared there.\n"
                "Leave feature_weight at 0."
            )
        net = net_of(teacher, stage.net, where=self.teacher)
        check_rules(stage.spec, net.spec, stage.net)
        return net


class _Taught(Bound):
    """Distillation at work."""

    def __init__(self, of: Criterion, plan: Distill, student: Network, teacher: Teacher) -> None:
        super().__init__(of)
        self.plan = plan
        self.teacher = teacher
        self.features = None
        if plan.weight and plan.feature_weight:
            self.features = Features(student, teacher)
            self.companion = self.features.adapters

    def __call__(self, detector: Any, raw: Any, batch: Any) -> Loss:
        task = self.of(detector, raw, batch)
        weight = self.plan.weight
        if not weight:
            return task
        if isinstance(batch, CropBatch):
            parts = self._about_crops(detector, raw, batch)
        elif isinstance(raw, RawTensors):
            parts = self._about_faces(detector, raw, batch)
        else:
            parts = self._about_classes(detector, raw, batch)
        distance = torch.stack(list(parts.values())).sum()
        named = {f"teacher_{name}": part.detach() for name, part in parts.items()}
        return Loss((1 - weight) * task.total + weight * distance, {**task.parts, **named})

    def _about_classes(self, classifier: Any, logits: Tensor, batch: Any) -> dict[str, Tensor]:
        said = self.teacher.answer(batch.images)
        parts = {"classes": between_classes(logits, said["logits"], self.plan.temperature)}
        if self.features is not None:
            parts["features"] = self.plan.feature_weight * self.features(said)
        return parts

    def _about_faces(self, detector: Detector, raw: RawTensors, batch: Batch) -> dict[str, Tensor]:
        mine, theirs = detector.spec, self.teacher.network.spec
        assert isinstance(theirs, DetectorSpec)
        floor = theirs.postprocess.score_floor if self.plan.floor is None else self.plan.floor
        size = batch.images.shape[2], batch.images.shape[3]
        if not same_cells(mine, theirs, *size):
            return self._instead_of_annotations(detector, raw, batch, floor)
        said = self.teacher.answer(batch.images)
        parts, sure = self._apart(raw, _translated(said, theirs, mine, size), floor)
        if self.features is not None:
            masks = _cells(sure.faces, theirs, size)
            parts["features"] = self.plan.feature_weight * self.features(said, masks)
        return parts

    def _about_crops(self, stage: Stage, raw: RawTensors, batch: CropBatch) -> dict[str, Tensor]:
        said = self.teacher.answer(batch.images)
        # Each crop has one answer: together they stand for the anchors of one picture.
        points = None if raw.landmarks is None else raw.landmarks.transpose(0, 1)
        mine = RawTensors(raw.logits.transpose(0, 1), raw.offsets.transpose(0, 1), points)
        goal = {name: said[name].transpose(0, 1) for name in raw._fields if name in said}
        floor = _floor(stage) if self.plan.floor is None else self.plan.floor
        return self._apart(mine, goal, floor)[0]

    def _apart(
        self, raw: RawTensors, goal: Mapping[str, Tensor], floor: float
    ) -> tuple[dict[str, Tensor], Sure]:
        """Return the distances of answers ``(b, anchors, ...)``, and which anchors they count."""
        plan = self.plan
        sure = Sure.of(raw.logits.detach(), goal["logits"], floor, plan.negatives_per_positive)
        parts = {"scores": between_scores(raw.logits, goal["logits"], sure, plan.temperature)}
        if plan.box_weight:
            offsets = between_offsets(raw.offsets, goal["offsets"], sure)
            parts["boxes"] = plan.box_weight * offsets
            if raw.landmarks is not None and "landmarks" in goal:
                points = raw.landmarks.flatten(2), goal["landmarks"].flatten(2)
                parts["landmarks"] = plan.box_weight * between_offsets(*points, sure)
        return parts, sure

    def _instead_of_annotations(
        self, detector: Detector, raw: RawTensors, batch: Batch, floor: float
    ) -> dict[str, Tensor]:
        if self.features is not None:
            raise UsageError(
                f"The cells of {self.teacher.network.spec.name} and {detector.spec.name} lie in "
                "different places, so what their heads read cannot be compared.\n"
                "Leave feature_weight at 0."
            )
        faces = self.teacher.faces(batch.images, floor)
        return {"found": self.of(detector, raw, Batch(batch.images, faces)).total}


def _floor(stage: Stage) -> float:
    """Return the score from which a net of a cascade lets a crop through."""
    rules = stage.spec
    floors = rules.proposal_floor, rules.refine_floor, rules.postprocess.score_floor
    return floors[CASCADE_NETS.index(stage.net)]


def _translated(
    said: dict[str, Tensor], teacher: DetectorSpec, student: DetectorSpec, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return what the teacher says, boxes and landmarks as offsets from the student's anchors."""
    if (teacher.anchors, teacher.codec) == (student.anchors, student.codec):
        return said
    device = said["offsets"].device
    theirs, mine = (
        torch.tensor(spec.anchors.anchors(*size), device=device) for spec in (teacher, student)
    )
    goal = {
        "logits": said["logits"],
        "offsets": student.codec.encode(teacher.codec.decode(said["offsets"], theirs), mine),
    }
    if "landmarks" in said:
        points = teacher.codec.decode_points(said["landmarks"], theirs)
        goal["landmarks"] = student.codec.encode_points(points, mine)
    return goal


def _cells(
    confidence: Tensor, spec: DetectorSpec, size: tuple[int, int]
) -> dict[tuple[int, int], Tensor]:
    """Return the highest confidence of each cell, ``(b, 1, rows, columns)``, by map size."""
    cells: dict[tuple[int, int], Tensor] = {}
    start = 0
    for level in spec.anchors.levels:
        rows, columns = level.rows_and_columns(*size)
        count = rows * columns * len(level.sizes)
        part = confidence[:, start : start + count].reshape(-1, rows, columns, len(level.sizes))
        # Where two levels have maps of one size, the first of them stands for it.
        cells.setdefault((rows, columns), part.amax(dim=3)[:, None])
        start += count
    return cells
