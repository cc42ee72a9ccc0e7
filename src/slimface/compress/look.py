"""Look: the pictures that a compressing step sees, whole and the same each time."""

from typing import Any

from pydantic import Field

from slimface.compress.prune.probe import Probe
from slimface.core.value import Value
from slimface.data.batches import Batches, Loader
from slimface.data.folders import ClassSource
from slimface.data.labelled import STILL, LabelledBatches
from slimface.data.source import Source, Split
from slimface.data.transforms import PlainAugment
from slimface.model.classifier import IMAGENET
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.criteria import AnyCriterion
from slimface.train.criterion import MultiBox


class Look(Value):
    """The pictures that data-driven importances and sensitivities see: whole, not augmented."""

    batches: int = Field(default=8, gt=0)
    batch_size: int = Field(default=8, gt=0)
    size_px: int = Field(default=320, ge=64)
    criterion: AnyCriterion = MultiBox()

    def __call__(self, context: Context, *, split: Split = "train") -> Probe | None:
        """Read them; None if there is no source."""
        if context.source is None:
            return None
        loader: Loader[Any] = self._loader(context.source, context.seed, split)
        count = min(self.batches, len(loader))
        shown = context.track(loader.epoch(0), "looking at pictures", total=count)
        # The count stops first, so that no batch is read in vain.
        batches = [batch for _, batch in zip(range(count), shown, strict=False)]
        return Probe(batches, innermost(self.criterion))

    def _loader(self, source: Source, seed: int, split: Split) -> Loader[Any]:
        if isinstance(source, ClassSource):
            return LabelledBatches(
                source.labelled(split),
                augment=STILL,
                rule=IMAGENET.model_copy(
                    update={"height_px": self.size_px, "width_px": self.size_px}
                ),
                batch_size=self.batch_size,
                seed=seed,
                workers=0,
            )
        return Batches(
            source.pictures(split).with_faces(),
            augment=PlainAugment(mirror=False),
            size_px=self.size_px,
            batch_size=self.batch_size,
            seed=seed,
            workers=0,
        )
