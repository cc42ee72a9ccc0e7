"""Network: what the models of all tasks have in common as torch modules."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slimface.core.grid import Grid
from slimface.core.spec import ModelSpec, WholePicture


class Network(nn.Module):
    """Normalised pictures in, raw answers out. Surgery, profile and checkpoints need no more.

    A subclass is a task (``Detector``, ``Classifier``), and a subclass of that one paper.
    """

    head_names: tuple[str, ...] = ()
    """Modules whose output channels have a meaning each; their outputs are never cut."""

    constant_names: tuple[str, ...] = ()
    """Parameters that belong to no layer and have no entry for each channel; they are never cut."""

    trace_size: tuple[int, int] = (64, 64)
    """Height and width of a small input that reaches every layer."""

    input_size: tuple[int, int] | None = None
    """The one height and width that the network takes; None: any."""

    spec: ModelSpec

    grid: Grid | None = None
    """The whole numbers that its weights have learnt to live with; see ``checkpoint.grid_of``."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @classmethod
    def translate(cls, tensors: Mapping[str, Tensor], *, where: str) -> Mapping[str, Tensor]:
        """Return a published state dict by the names, and in the order of columns, of the module.

        Raises:
            CheckpointError: ``tensors`` are not those of this architecture.
        """
        return tensors

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the heads, as they are.

        This is what channel tracing follows: no flattening and no mixing of channels after it.
        """
        raise NotImplementedError

    def prepare(self, pictures: Tensor) -> Tensor:
        """Normalise 8-bit RGB pictures ``(b, 3, height, width)`` as the spec says."""
        rule = self.spec.preprocess
        images = pictures if rule.colour == "rgb" else pictures.flip(1)
        mean = rule.mean if rule.colour == "rgb" else rule.mean[::-1]
        shift = torch.tensor(mean, dtype=torch.float32, device=pictures.device)
        images = (images.float() - shift.view(1, 3, 1, 1)) * rule.scale
        if isinstance(rule, WholePicture):
            deviation = rule.deviation if rule.colour == "rgb" else rule.deviation[::-1]
            images = images / torch.tensor(deviation, device=pictures.device).view(1, 3, 1, 1)
        return images

    def forward(self, images: Tensor) -> Any:
        """Answer to normalised pictures ``(b, 3, height, width)``."""
        raise NotImplementedError
