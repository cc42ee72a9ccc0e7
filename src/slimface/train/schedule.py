"""Schedules: how long, how fast, and which parameters decay."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from slimface.core.value import Value


class Schedule(Value):
    """The course of a training."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=16, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate for ``batch_size`` pictures a step."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd; adam and adamw keep their own two."""

    weight_decay: float = Field(default=5e-4, ge=0)
    """On weights of convolutions and linear layers only: norms, biases and fusion scalars of the
    published detectors died of it (their ReLU'd fusion weights decayed to zero)."""

    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs over which the rate rises from a hundredth."""

    decay: Literal["cosine", "steps", "none"] = "cosine"
    decay_epochs: tuple[float, ...] = ()
    """For ``steps``: when the rate is divided by ten."""

    clip_norm: float = Field(default=10.0, gt=0)
    """Largest L2 norm of all gradients together."""

    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is then what training returns; 0: none."""

    frozen_norms: bool = False
    """Batch norms keep their statistics (their scales and shifts learn on). Those of a published
    detector are of whole pictures; crops have others, and one epoch of them costs RetinaFace four
    points whatever the learning rate."""

    def rate_at(self, epoch: float) -> float:
        """Return the learning rate at a moment, measured in epochs."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (0.01 + 0.99 * epoch / self.warmup_epochs)
        if self.decay == "steps":
            return self.learning_rate * 0.1 ** sum(epoch >= at for at in self.decay_epochs)
        if self.decay == "cosine":
            done = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
            return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))
        return self.learning_rate

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer over ``module`` as it now is.

        Make it after surgery, never before: cutting a layer gives it new parameters, and an
        optimizer that holds the old ones would train nothing, in silence.
        """
        weights = _layer_weights(module)
        decaying: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                (decaying if id(parameter) in weights else free).append(parameter)
        groups = [
            {"params": decaying, "weight_decay": self.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum)
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=self.learning_rate)


def _layer_weights(module: nn.Module) -> set[int]:
    """Identities of the weights of layers that multiply: what weight decay is meant for."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
    return {id(layer.weight) for layer in module.modules() if isinstance(layer, layers)}
