"""Widths: layers that take the shapes of given tensors.

A spec says nothing of widths; they are where they cannot disagree with the weights, in the shapes
of the weights. This is what turns a freshly built module into the pruned one a file describes.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Shape = tuple[int, ...]


def is_resizable(layer: nn.Module) -> bool:
    """Whether this kind of layer can be given other widths."""
    if isinstance(layer, _ConvTransposeNd):
        return False
    return isinstance(layer, _ConvNd | nn.Linear | _BatchNorm | nn.PReLU)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each input channel has filters of its own."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1


def resize_(module: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Give every layer of ``module`` tensors of these shapes, where they differ, and its fields.

    The contents of tensors that change are undefined until they are loaded.

    Args:
        module: Changed in place.
        shapes: Name in the state dict -> shape. Names that no resizable layer has are ignored, so
            that strict loading afterwards can complain about them.
    """
    for prefix, layer in module.named_modules():
        if not is_resizable(layer):
            continue
        before = layer.weight
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers()]:
            shape = shapes.get(f"{prefix}.{name}" if prefix else name)
            if shape is not None and shape != tuple(tensor.shape):
                _replace_(layer, name, torch.empty(shape, dtype=tensor.dtype, device=tensor.device))
        if layer.weight is not before:
            _update_fields_(layer)


def replace_tensor_(layer: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put ``value`` in the place of a parameter or buffer, and correct the layer's fields."""
    _replace_(layer, name, value)
    _update_fields_(layer)


def _replace_(layer: nn.Module, name: str, value: torch.Tensor) -> None:
    old = getattr(layer, name)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(layer, name, value)


def _update_fields_(layer: nn.Module) -> None:
    """Make the numbers a layer carries agree with its weight."""
    if isinstance(layer, _ConvNd):
        outputs, inputs = layer.weight.shape[:2]
        if is_depthwise(layer):
            multiplier = layer.out_channels // layer.in_channels
            layer.groups = layer.in_channels = max(1, outputs // multiplier)
        else:
            layer.in_channels = inputs * layer.groups
        layer.out_channels = outputs
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _BatchNorm):
        layer.num_features = len(layer.weight)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
