"""Precision: a detector in half the bits, or the reason why that would be nonsense.

The largest float16 is 65,504. Published weights go beyond it: batch norms of pruned EXTD files have
variances up to 3.9e14 beside filters up to 21,785, whose quotient is an ordinary number. So batch
norms are folded first, in double precision, and what is left has to fit.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from slimface.errors import CheckpointError
from slimface.model.detector import Detector
from slimface.model.surgery import fold_batch_norms

LARGEST = torch.finfo(torch.float16).max
_TOLERANCE = 0.05
"""Share of its range by which rounding may move an output; published detectors stay below 0.005."""


def to_half(detector: Detector) -> Detector:
    """Return a detector for inference in float16, its batch norms folded away.

    It takes normalised pictures in float16 and answers in float16. It has no spec's keys any more,
    so it is to be exported or run, not saved.

    Raises:
        CheckpointError: It does not fit, as for ``fold_for_half``.
        TraceError: Folding would change the outputs.
    """
    return fold_for_half(detector).half()


def fold_for_half(detector: Detector) -> Detector:
    """Return a detector for inference, still in float32, whose numbers all fit into float16.

    This is what to hand to a converter that does the rounding itself.

    Args:
        detector: Stays as it was.

    Raises:
        CheckpointError: A number that stays is beyond float16, or one that passes through a layer
            while the detector looks at noise, or rounding changes what it says about that. The
            message names the layer and the number.
        TraceError: Folding would change the outputs.
    """
    folded = fold_batch_norms(detector)
    _check_stored(folded)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, *folded.trace_size), generator=generator)
    images = folded.prepare(noise.to(next(folded.parameters()).device))
    with torch.inference_mode():
        exact = _maps_that_fit(folded, images)
        rounded = copy.deepcopy(folded).half().float().maps(images)
    for one, other in zip(exact, rounded, strict=True):
        drift = float((one - other).abs().max() / one.abs().max().clamp(min=1))
        if not drift <= _TOLERANCE:
            raise _misfit(
                folded, f"rounding its weights moves an output by {drift:.0%} of its range"
            )
    return folded


def _check_stored(detector: Detector) -> None:
    for name, tensor in detector.state_dict().items():
        if tensor.is_floating_point() and tensor.numel():
            peak = float(tensor.abs().max())
            if not peak <= LARGEST:
                layer, _, kind = name.rpartition(".")
                norm = f" (the batch norm {layer} follows no convolution to be folded into)"
                lonely = kind.startswith("running_")
                raise _misfit(detector, f"{name} reaches {peak:.3g}" + (norm if lonely else ""))


def _maps_that_fit(detector: Detector, images: Tensor) -> tuple[Tensor, ...]:
    """Return ``detector.maps(images)`` in float32; refuse what would overflow on the way."""

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.numel():
                peak = float(output.abs().max())
                if not peak <= LARGEST:
                    raise _misfit(detector, f"{name} gives out {peak:.3g} for a picture of noise")

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in detector.named_modules()
        if name and not isinstance(module, nn.ModuleList)
    ]
    try:
        return detector.maps(images)
    finally:
        for handle in handles:
            handle.remove()


def _misfit(detector: Detector, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{detector.spec.name} does not fit into float16, whose largest number is {LARGEST:.0f}: "
        f"{reason}.\nKeep float32 for this model."
    )
