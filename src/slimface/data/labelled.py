"""Labelled pictures: what an image classifier learns from, each picture of one class."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from slimface.core.spec import WholePicture
from slimface.core.value import Value
from slimface.data.batches import Loader
from slimface.deploy.media import Picture, read_picture
from slimface.deploy.preprocess import fitted
from slimface.errors import SlimfaceError, UsageError

LabelledSplit = Literal["train", "val", "test"]
"""To learn from; to make decisions by; to report, and for nothing else."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture and its class."""

    name: str
    """Unique in its set: ``Abyssinian/Abyssinian_100.jpg``."""

    path: Path
    label: int
    """Index of its class."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    """A named, ordered set of pictures of known classes."""

    name: str
    classes: tuple[str, ...]
    pictures: tuple[Labelled, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Labelled]:
        return iter(self.pictures)

    def subset(self, indices: Iterable[int]) -> "LabelledSet":
        """Return the pictures at these places, in this order."""
        return replace(self, pictures=tuple(self.pictures[i] for i in indices))

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of classes, names and labels."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for one in self.pictures:
            digest.update(f"{one.name}\n{one.label}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class LabelledBatch:
    """Pictures of one size and the class of each."""

    images: Tensor
    """8-bit RGB, shape ``(b, 3, height, width)``, memory in channels-last order."""

    labels: Tensor
    """Shape ``(b,)``, int64."""

    def __len__(self) -> int:
        return len(self.labels)


class CropFlip(Value):
    """Moved by a few pixels, and every second one mirrored.

    The picture is brought to the size of the classifier, grows by a reflected border, and a window
    of the old size is cut out of it. Source: He et al., "Deep Residual Learning", CVPR 2016,
    arXiv:1512.03385, section 4.2.
    """

    kind: Literal["crop_flip"] = "crop_flip"
    border_px: int = Field(default=4, ge=0)
    mirror: bool = True

    def __call__(self, picture: Picture, rule: WholePicture, rng: np.random.Generator) -> Picture:
        """Return a sample of the rule's size."""
        sized = fitted(picture, rule)
        border = self.border_px
        if border:
            wide = np.pad(sized, ((border, border), (border, border), (0, 0)), mode="reflect")
            top, left = rng.integers(0, 2 * border + 1, size=2)
            sized = wide[top : top + rule.height_px, left : left + rule.width_px]
        if self.mirror and rng.random() < 0.5:
            sized = sized[:, ::-1]
        return np.ascontiguousarray(sized)


STILL = CropFlip(border_px=0, mirror=False)
"""No augmentation: what a classifier sees when it is used."""


class LabelledBatches(Loader[LabelledBatch]):
    """The batches of any epoch, always the same for the same arguments.

    Args:
        pictures: What to learn from.
        augment: How a picture becomes a sample.
        rule: The size that the classifier looks at.
        batch_size: Samples a batch, in each process of a distributed training.
        seed: Of order and augmentation.
        workers: Processes that prepare batches; 0 does it here.
        drop_last: Leave out what does not fill a batch at the end of an epoch.

    Raises:
        UsageError: There are too few pictures for a single batch.
    """

    def __init__(
        self,
        pictures: LabelledSet,
        *,
        augment: CropFlip,
        rule: WholePicture,
        batch_size: int,
        seed: int = 0,
        workers: int = 1,
        drop_last: bool = True,
    ) -> None:
        if len(pictures) < (batch_size if drop_last else 1):
            raise UsageError(
                f"{pictures.name} has {len(pictures)} pictures; a batch needs {batch_size}.\n"
                "Use a smaller batch_size or more pictures."
            )
        super().__init__(
            _Samples(pictures, augment, rule, seed),
            len(pictures),
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            drop_last=drop_last,
        )


class _Samples(Dataset[LabelledBatch]):
    """Makes whole batches, in whichever process it lives."""

    def __init__(
        self, pictures: LabelledSet, augment: CropFlip, rule: WholePicture, seed: int
    ) -> None:
        self.pictures = pictures.pictures
        self.augment = augment
        self.rule = rule
        self.seed = seed

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> LabelledBatch | SlimfaceError:
        try:
            images = np.stack([self._sample(epoch, index) for epoch, index in keys])
        except SlimfaceError as error:
            # As a value: an exception would come out as torch's, wrapped in a traceback.
            return error
        labels = torch.tensor([self.pictures[index].label for _, index in keys])
        return LabelledBatch(torch.from_numpy(images).permute(0, 3, 1, 2), labels)

    def _sample(self, epoch: int, index: int) -> Picture:
        rng = np.random.default_rng((self.seed, epoch, index))
        return self.augment(read_picture(self.pictures[index].path), self.rule, rng)
