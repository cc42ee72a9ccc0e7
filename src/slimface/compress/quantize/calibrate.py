"""Calibration: what the tensors of a network hold when it looks at real pictures.

Nothing is imitated. The float file runs in its own pipeline, and what its network is shown there is
noted down: the crops of a cascade's later nets are those that its earlier ones let through. Then
the network runs once more with all its tensors as outputs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slimface.core.faces import Floats
from slimface.core.spec import CASCADE_NETS
from slimface.deploy.cascade import Cascade
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.media import Picture
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.errors import UsageError

WHOLE = ""
"""Name of the one network of a model that is no cascade."""

LONGEST_PX = 640
"""Calibration pictures are made so small: tensors of all layers have to fit into memory."""

CROPS = 8
"""Crops of one call that a cascade's later nets are calibrated on."""

BANDS = 2
"""Calls of one picture that a cascade's first net is calibrated on."""

SAMPLED = 4096
"""Values of a tensor that are kept of each input; its least and its largest are exact."""

SAMPLE = 2**16
"""Values of a tensor that its range is chosen from."""


def shown_to_networks(
    pipeline: Pipeline | ClassPipeline, pictures: Iterable[tuple[str, Picture]]
) -> dict[str, list[Floats]]:
    """Let a model look at pictures, and return what its networks were shown.

    Args:
        pipeline: A detector, a cascade or a classifier; unchanged.
        pictures: Names and pictures.

    Raises:
        UsageError: There is no picture, or nothing on any of them reaches one of the networks.
        DataError: A picture is damaged.
    """
    seen: dict[str, list[Floats]] = {}
    restore = _listen(pipeline, seen)
    count = 0
    try:
        for _, picture in pictures:
            count += 1
            if isinstance(pipeline, ClassPipeline):
                pipeline.classify(picture)
            else:
                pipeline.detect(picture, _settings(picture))
    finally:
        restore()
    if not count:
        raise UsageError(
            "There is no picture to calibrate on.\n"
            "Name a folder with pictures as the device will see them: --data DIR."
        )
    for name, inputs in seen.items():
        if not inputs:
            raise UsageError(
                f"On none of the {count} pictures does anything reach {name}, so its numbers are "
                "unknown.\nCalibrate on pictures that show faces."
            )
    return seen


def _settings(picture: Picture) -> Settings:
    if max(picture.shape[:2]) <= LONGEST_PX:
        return Settings()
    return Settings(longest_px=LONGEST_PX)


def _listen(
    pipeline: Pipeline | ClassPipeline, seen: dict[str, list[Floats]]
) -> Callable[[], None]:
    """Put an ear in front of each network; return what takes them off again."""
    if isinstance(pipeline, Cascade):
        nets = pipeline.networks
        for name in CASCADE_NETS:
            limit = BANDS if name == CASCADE_NETS[0] else CROPS
            setattr(nets, name, _Ear(getattr(nets, name), seen.setdefault(name, []), limit))

        def give_back() -> None:
            for name in CASCADE_NETS:
                setattr(nets, name, getattr(nets, name).network)

        return give_back
    pipeline.network = _Ear(pipeline.network, seen.setdefault(WHOLE, []), 0)

    def restore() -> None:
        assert isinstance(pipeline.network, _Ear)
        pipeline.network = pipeline.network.network

    return restore


class _Ear:
    """A network that notes down what it is shown."""

    def __init__(self, network: Callable[[Floats], Any], heard: list[Floats], crops: int) -> None:
        self.network = network
        self.heard = heard
        self.crops = crops

    def __call__(self, images: Floats) -> Any:
        # Spread over the batch: the first crops of a cascade are those with the highest scores.
        stride = max(len(images) // self.crops, 1) if self.crops else 1
        # The pipeline uses its buffer again.
        self.heard.append(np.array(images[::stride]))
        return self.network(images)


@dataclass(slots=True)
class Seen:
    """What one tensor held."""

    lowest: float = np.inf
    highest: float = -np.inf
    parts: list[Floats] = field(default_factory=list)
    means: list[Floats] = field(default_factory=list)
    """Of each channel, an array an input."""

    peaks: list[Floats] = field(default_factory=list)
    """Largest magnitude of each channel, an array an input."""

    def add(self, values: Floats) -> None:
        """Take note of another input's values, shape ``(b, channels, ...)``."""
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        flat = values.ravel()
        self.parts.append(flat[:: max(flat.size // SAMPLED, 1)].copy())
        if values.ndim > 1:
            axes = (0, *range(2, values.ndim))
            self.means.append(values.mean(axis=axes, dtype=np.float64).astype(np.float32))
            self.peaks.append(np.maximum(values.max(axis=axes), -values.min(axis=axes)))

    @property
    def values(self) -> Floats:
        """A sample of all values, the extremes among them."""
        extremes = np.array([self.lowest, self.highest], dtype=np.float32)
        sample = np.concatenate(self.parts)
        return np.concatenate([sample[:: -(-sample.size // SAMPLE)], extremes])

    @property
    def mean(self) -> Floats:
        """Of each channel over all inputs, shape ``(channels,)``."""
        mean: Floats = np.mean(self.means, axis=0)
        return mean

    @property
    def peak(self) -> Floats:
        """Largest magnitude of each channel over all inputs, shape ``(channels,)``."""
        peak: Floats = np.max(self.peaks, axis=0)
        return peak


def observe(
    run: Callable[[Floats], Sequence[Floats]], names: Sequence[str], inputs: Iterable[Floats]
) -> dict[str, Seen]:
    """Run a network on its inputs, and return what each of its tensors held.

    Args:
        run: Gives the tensors of one input, in the order of ``names``.
        names: Of the tensors.
        inputs: What the network is shown.

    Raises:
        UsageError: A tensor is infinite or no number; the message names it.
    """
    seen = {name: Seen() for name in names}
    for one in inputs:
        for name, values in zip(names, run(one), strict=True):
            if values.size:
                seen[name].add(np.asarray(values, dtype=np.float32))
    for name, found in seen.items():
        if found.parts and not np.isfinite(found.lowest + found.highest):
            raise UsageError(
                f"The tensor {name} is infinite or no number on a calibration picture.\n"
                "The weights are damaged or the training diverged; use an earlier checkpoint."
            )
    return {name: found for name, found in seen.items() if found.parts}
