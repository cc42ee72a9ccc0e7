"""Side: what a quantised file finds and how fast it is, beside the float file it came from."""

from collections.abc import Iterable
from pathlib import Path

from slimface.bench.side_by_side import detection_ms
from slimface.core.value import Value
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.media import Picture
from slimface.export.classes import ClassParity, compared
from slimface.export.parity import TOLERANCES, ParityReport, parity
from slimface.loading import load_any


class SideBySide(Value):
    """Two files on this machine, in turns."""

    float_ms: float
    """Milliseconds of the network for one picture, with one thread."""

    ms: float
    runtime: str
    """That runs the quantised file; the float file runs in ONNX Runtime."""

    @property
    def slower(self) -> bool:
        """Whether eight bits cost time here."""
        return self.ms > self.float_ms

    def explain(self) -> str:
        """Return the finding in a sentence for people."""
        ratio = self.float_ms / self.ms
        how = f"{ratio:.2f} times as fast" if ratio >= 1 else f"SLOWER, {1 / ratio:.2f} times"
        return (
            f"{self.ms:.2f} ms quantised ({self.runtime}), {self.float_ms:.2f} ms in float32 "
            f"(onnxruntime), one thread: {how}"
        )


def agreement(
    source: Path, made: Path, pictures: Iterable[tuple[str, Picture]], *, score: float = 0.3
) -> ParityReport | ClassParity:
    """Compare what the two files find on pictures; see ``slimface.export.parity``."""
    reference, candidate = load_any(source, threads=1), load_any(made, threads=1)
    if isinstance(reference, ClassPipeline):
        assert isinstance(candidate, ClassPipeline)
        return compared(reference, candidate, pictures, precision="int8")
    assert not isinstance(candidate, ClassPipeline)
    return parity(
        reference,
        candidate,
        pictures,
        score=score,
        tolerance=TOLERANCES["int8"],
        names=("float32", "int8"),
    )


def speed(source: Path, made: Path, picture: Picture, *, rounds: int = 9) -> SideBySide:
    """Time the two files on one picture, in turns."""
    before, after = detection_ms([source, made], picture, rounds=rounds)
    runtime = load_any(made, threads=1).runtime
    return SideBySide(float_ms=round(before, 3), ms=round(after, 3), runtime=runtime)
