"""Batches: augmented pictures in the order of an epoch, prepared by worker processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from slimface.core.faces import Faces
from slimface.data.pictures import PictureSet
from slimface.data.transforms import Augment
from slimface.deploy.media import Picture, read_picture, upright_size
from slimface.errors import DataError, SlimfaceError, UsageError

B = TypeVar("B")

_DRAWS = 10
_PICTURES = 50


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pictures of one size and the faces on each."""

    images: Tensor
    """8-bit RGB, shape ``(b, 3, size, size)``, memory in channels-last order."""

    faces: list[Faces]
    """In pixels of the images; every picture has at least one face."""

    def __len__(self) -> int:
        return len(self.faces)


class Loader(Generic[B]):
    """The batches of any epoch, always the same for the same arguments.

    What a sample looks like depends on the seed, the epoch and the picture alone: not on the
    number of workers, and not on whether the training was interrupted. Worker processes start
    with the first epoch and stay until ``close``.

    Args:
        samples: Makes a batch of ``(epoch, index)`` pairs, or returns the error that kept it from.
        count: How many samples there are.
        batch_size: Samples a batch, in each process of a distributed training.
        seed: Of the order.
        workers: Processes that prepare batches; 0 does it here.
        rank: This process's number in a distributed training.
        world_size: How many processes share the samples.
        drop_last: Leave out what does not fill a batch at the end of an epoch.
    """

    def __init__(
        self,
        samples: Dataset[B],
        count: int,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        self._order = _Order(count, batch_size, seed, rank, world_size, drop_last)
        self._loader: DataLoader[Any] = DataLoader(
            samples,
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            # A generator of its own: drawing the workers' seeds from torch's global one would make
            # a resumed training differ from an uninterrupted one.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._order)

    def epoch(self, index: int, *, skip: int = 0) -> Iterator[B]:
        """Iterate over the batches of an epoch, without the first ``skip``, which cost nothing.

        One epoch at a time: asking for the next ends the one before.

        Raises:
            DataError: A picture cannot be read; the message names its file.
        """
        self._order.epoch, self._order.skip = index, skip
        for result in self._loader:
            if isinstance(result, SlimfaceError):
                raise result
            yield result

    def close(self) -> None:
        """End the worker processes."""
        self._loader._iterator = None


class Batches(Loader[Batch]):
    """Batches of annotated pictures.

    Args:
        pictures: What to learn from; pictures without faces are left out.
        augment: How a picture becomes a sample.
        size_px: Side of the samples.
        batch_size: Samples a batch, in each process of a distributed training.
        seed: Of order and augmentation.
        workers: Processes that prepare batches; 0 does it here.
        rank: This process's number in a distributed training.
        world_size: How many processes share the pictures.
        drop_last: Leave out what does not fill a batch at the end of an epoch.

    Raises:
        UsageError: There are too few pictures for a single batch, or a last batch that not all
            processes would get is not to be dropped.
    """

    def __init__(
        self,
        pictures: PictureSet,
        *,
        augment: Augment,
        size_px: int,
        batch_size: int,
        seed: int = 0,
        workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        pictures = pictures.with_faces()
        super().__init__(
            _Samples(pictures, augment, size_px, seed),
            len(pictures),
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        if not drop_last and world_size > 1:
            raise UsageError(
                "With several processes the last, smaller batch cannot be kept: some would wait "
                "for others forever.\nSet drop_last."
            )
        if not len(self):
            raise UsageError(
                f"{pictures.name} has {len(pictures)} pictures with faces; a batch needs "
                f"{batch_size * world_size}.\nUse a smaller batch_size or more pictures."
            )


class _Order:
    """Which pictures are in which batch, as (epoch, picture) pairs."""

    def __init__(
        self, count: int, batch_size: int, seed: int, rank: int, world_size: int, drop_last: bool
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size * self.world_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for batch in range(self.skip, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, int(i)) for i in order[start : start + self.batch_size]]


class _Samples(Dataset[Batch]):
    """Makes whole batches, in whichever process it lives."""

    def __init__(self, pictures: PictureSet, augment: Augment, size_px: int, seed: int) -> None:
        self.pictures = pictures
        self.augment = augment
        self.size_px = size_px
        self.seed = seed

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch | SlimfaceError:
        try:
            samples = [self.sample(epoch, index) for epoch, index in keys]
        except SlimfaceError as error:
            # As a value: an exception would come out as torch's, wrapped in a traceback.
            return error
        images = torch.from_numpy(np.stack([picture for picture, _ in samples]))
        return Batch(images.permute(0, 3, 1, 2), [faces for _, faces in samples])

    def sample(self, epoch: int, index: int) -> tuple[Picture, Faces]:
        """Augment a picture until a face is left; where none ever is, take another picture."""
        rng = np.random.default_rng((self.seed, epoch, index))
        for _ in range(_PICTURES):
            one = self.pictures[index]
            size, whole = upright_size(one.path), None
            if size is None:
                whole = read_picture(one.path)
                size = whole.shape[0], whole.shape[1]
            for _ in range(_DRAWS):
                plan = self.augment.plan(size, one.faces, rng, self.size_px, reduce=whole is None)
                if len(plan.faces):
                    if whole is None:
                        whole = read_picture(one.path, reduction=plan.reduction)
                    return plan.render(whole), plan.faces
            index = int(rng.integers(len(self.pictures)))
        raise DataError(
            f"{self.pictures.name}: of {_PICTURES} pictures, {_DRAWS} samples of {self.size_px} "
            f"pixels each, no face was left (the last was {one.path}).\n"
            "Use larger samples or a smaller min_area_px, or check the boxes."
        )


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    # Workers are the parallelism; threads of OpenCV inside them would only fight for the cores.
    cv2.setNumThreads(0)
