"""Crops in training: their batches, and the published losses of the nets of a cascade."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from slimface.core.value import Value
from slimface.data.crop_set import CropSet
from slimface.data.crops import Kind, Net, Records
from slimface.errors import UsageError
from slimface.model.detector import RawTensors
from slimface.model.mtcnn import Stage
from slimface.train.criterion import Loss

_MIRRORED = [1, 0, 2, 4, 3]
"""Landmarks whose left and right have changed places."""


@dataclass(frozen=True, slots=True, eq=False)
class CropBatch:
    """Crops, and what each of them is of."""

    images: Tensor
    """8-bit RGB, shape ``(b, 3, side, side)``, memory in channels-last order."""

    kinds: Tensor
    """Shape ``(b,)``: values of ``data.crops.Kind``."""

    offsets: Tensor
    """Shape ``(b, 4)``: from the crop's box to that of its face; 0 where it has none."""

    landmarks: Tensor
    """Shape ``(b, 5, 2)``: x, y as fractions of the crop's box; NaN where not annotated."""

    def __len__(self) -> int:
        return len(self.kinds)


class CropBatches:
    """The batches of any epoch, always the same for the same crops and arguments.

    Args:
        crops: What to learn from.
        batch_size: Crops a batch.
        seed: Of order and mirroring.
        mirror: Mirror each second crop; False for what a net is judged by.
        drop_last: Leave out what does not fill a batch.

    Raises:
        UsageError: There are fewer crops than one batch needs.
    """

    def __init__(
        self,
        crops: CropSet,
        *,
        batch_size: int,
        seed: int = 0,
        mirror: bool = True,
        drop_last: bool = True,
    ) -> None:
        if not len(crops) or (drop_last and len(crops) < batch_size):
            raise UsageError(
                f"{len(crops):,} crops are fewer than one batch of {batch_size}.\n"
                "Lower the batch size or bring more pictures."
            )
        self.crops = crops
        self.batch_size = batch_size
        self.seed = seed
        self.mirror = mirror
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(len(self.crops), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def epoch(self, index: int, *, skip: int = 0) -> Iterator[CropBatch]:
        """Iterate over the batches of an epoch, without the first ``skip``."""
        order = np.random.default_rng((self.seed, index)).permutation(len(self.crops))
        for batch in range(skip, len(self)):
            start = batch * self.batch_size
            records = self.crops.take(order[start : start + self.batch_size])
            if self.mirror:
                rng = np.random.default_rng((self.seed, index, batch))
                mirror_(records, rng.random(len(records)) < 0.5)
            yield as_batch(records)


def mirror_(records: Records, which: npt.NDArray[np.bool_]) -> None:
    """Mirror some crops left to right, in place, with their offsets and landmarks."""
    records["pixels"][which] = records["pixels"][which][:, :, ::-1]
    offsets = records["offsets"][which]
    offsets[:, [0, 2]] = -offsets[:, [2, 0]] - records["lopsided"][which][:, None]
    records["offsets"][which] = offsets
    points = records["landmarks"][which][:, _MIRRORED]
    points[..., 0] = 1 - points[..., 0]
    records["landmarks"][which] = points


def as_batch(records: Records) -> CropBatch:
    """Return crops as tensors."""
    # Copies: fields of a record lie at odd distances, which tensors cannot have.
    pixels = torch.from_numpy(records["pixels"].copy())
    return CropBatch(
        pixels.permute(0, 3, 1, 2),
        torch.from_numpy(records["kind"].astype(np.int64)),
        torch.from_numpy(records["offsets"].copy()),
        torch.from_numpy(records["landmarks"].copy()),
    )


class CropLoss(Value):
    """Cross entropy on faces and background, squared errors on boxes and landmarks.

    Parts of faces teach the box alone; landmarks are learnt where they are annotated, if anywhere.

    Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded
    Convolutional Networks", 2016, arXiv:1604.02878, equations 1 to 4, and section II.D for the
    hard crops. The weights are those of its published PyTorch reimplementations. Two-class softmax
    is written as a sigmoid of the difference, which is the same function.
    """

    kind: Literal["crops"] = "crops"

    hardest: float = Field(default=0.7, gt=0, le=1)
    """Share of the classified crops of a batch whose loss counts, the hardest; 1: all."""

    class_weight: float = Field(default=1.0, ge=0)
    box_weight: float = Field(default=5.0, ge=0)
    landmark_weight: float = Field(default=0.0, ge=0)

    def __call__(self, detector: Stage, raw: RawTensors, batch: CropBatch) -> Loss:
        """Return the loss of ``raw``, a net's answer to ``batch``.

        Raises:
            UsageError: These are whole pictures.
        """
        if not isinstance(batch, CropBatch):
            raise UsageError(
                "The criterion crops is for the nets of a cascade, which learn with the step "
                "'train_net'.\nWrite criterion: {kind: multibox}, or its like."
            )
        device = raw.logits.device
        kinds = batch.kinds.to(device)
        face = kinds == Kind.POSITIVE
        classified = face | (kinds == Kind.NEGATIVE)
        logits = raw.logits[classified, 0]
        wrong = F.softplus(torch.where(face[classified], -logits, logits))
        parts = {"class": _mean(wrong.topk(math.ceil(self.hardest * len(wrong))).values)}
        boxed = kinds != Kind.NEGATIVE
        parts["box"] = _mean((raw.offsets[boxed, 0] - batch.offsets.to(device)[boxed]).square())
        total = self.class_weight * parts["class"] + self.box_weight * parts["box"]
        if raw.landmarks is not None and self.landmark_weight:
            points = batch.landmarks.to(device)
            known = points.isfinite().all(dim=2).all(dim=1)
            parts["landmarks"] = _mean((raw.landmarks[known, 0] - points[known]).square())
            total = total + self.landmark_weight * parts["landmarks"]
        return Loss(total, {name: part.detach() for name, part in parts.items()})


def _mean(errors: Tensor) -> Tensor:
    """The mean, and 0, with a gradient, of nothing."""
    return errors.sum() / max(errors.numel(), 1)


PUBLISHED: dict[Net, CropLoss] = {
    "pnet": CropLoss(box_weight=5),
    "rnet": CropLoss(box_weight=5),
    "onet": CropLoss(box_weight=20, landmark_weight=20),
}
"""Published weights of each net; for an O-Net without landmarks, 10 on its boxes was published."""
