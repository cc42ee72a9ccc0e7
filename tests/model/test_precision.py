"""Half precision: folding tames statistics beyond float16, and what cannot be tamed is refused."""

import pytest
import torch
from torch import Tensor, nn

from slimface.errors import CheckpointError
from slimface.model import eresfd, extd, yunet, zoo
from slimface.model.build import build
from slimface.model.checkpoint import fingerprint
from slimface.model.detector import Detector
from slimface.model.precision import fold_for_half, to_half
from tests.model.drawn_detector import drawn_detector, live_in_


def answers(detector: Detector, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    noise = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return detector.maps(detector.prepare(noise).to(dtype))


def assert_close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], share: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one.float() - other).abs().max() <= share * other.abs().max().clamp(min=1)


def swollen(width: int = 8) -> Detector:
    """EXTD with the first layer of the published files: the same network, numbers beyond float16.

    The filters are 1e7 times as large, and so is what the batch norm divides by.
    """
    detector = live_in_(build(extd.extd(width=width), seed=0), 0)
    filters, norm = detector.get_submodule("base.0.0"), detector.get_submodule("base.0.1")
    assert isinstance(filters, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        filters.weight.mul_(1e7)
        norm.running_mean.mul_(1e7)
        norm.running_var.mul_(1e14)
    return detector


def test_plain_conversion_overflows_and_folding_first_does_not() -> None:
    detector = swollen()
    before = fingerprint(detector)
    plain = answers(swollen().half(), torch.float16)
    assert not all(level.isfinite().all() for level in plain)
    half = to_half(detector)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert_close(answers(half, torch.float16), answers(detector), 0.02)
    assert fingerprint(detector) == before


@pytest.mark.parametrize("spec", [eresfd.naver(width=8), yunet.yunet(width=8)])
def test_folded_detectors_say_the_same_in_float32(spec) -> None:
    detector = live_in_(build(spec, seed=0), 0)
    assert_close(answers(fold_for_half(detector)), answers(detector), 1e-4)


def test_a_batch_norm_behind_no_convolution_is_refused_by_name() -> None:
    detector = drawn_detector(("plain",), 4, 0)

    class Late(nn.Module):
        def __init__(self, first: nn.Module) -> None:
            super().__init__()
            self.first = first
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.first(x).relu())

    late = Late(detector.stem)
    late.norm.running_var.fill_(1e6)
    detector.stem = late.eval()
    with pytest.raises(
        CheckpointError, match=r"(?s)stem\.norm\.running_var reaches 1e\+06.*float32"
    ):
        to_half(detector)


def test_maps_that_overflow_on_the_way_are_refused_by_layer() -> None:
    detector = drawn_detector(("plain",), 4, 0)
    with torch.no_grad():
        detector.get_parameter("stem.1.weight").fill_(5e4)
    with pytest.raises(CheckpointError, match=r"gives out .* for a picture of noise"):
        to_half(detector)


def test_weights_that_rounding_would_erase_are_refused() -> None:
    """Filters below 2 ** -25 are zero in float16; the next ones multiply by as much, and lose."""
    detector = drawn_detector(("plain",), 4, 0)
    with torch.no_grad():
        detector.get_parameter("stem.1.weight").mul_(2.0**-26)
        detector.get_parameter("stem.1.bias").mul_(2.0**-26)
        for layer in ("parts.0.first.0", "parts.0.second.0"):
            detector.get_parameter(f"{layer}.weight").mul_(2.0**13)
        detector.get_parameter("parts.0.first.1.bias").zero_()
        detector.get_buffer("parts.0.first.1.running_mean").zero_()
    with pytest.raises(CheckpointError, match="rounding its weights moves an output"):
        to_half(detector)


@pytest.mark.data
@pytest.mark.parametrize("name", ["extd-64-lfdp-fpgm50", "extd-32", "eresfd", "yunet-n"])
def test_published_detectors_say_nearly_the_same_in_half(published_weights: None, name) -> None:
    """The variances of the pruned EXTD reach 1.6e11, those of EXTD-32 2.8e5."""
    detector = zoo.load(name)
    assert_close(answers(to_half(detector), torch.float16), answers(detector), 0.02)
