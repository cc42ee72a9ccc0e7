"""Contenders: which files a matrix compares, exporting those that are not there yet.

Files are exported into a folder that is kept, named by what decides their content: the model's
fingerprint, the version of slimface, precision, size. They are exported in a process of their own,
by the command that anybody would use, gate included: a converter that crashes ends that process.
"""

import hashlib
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import slimface
from slimface.core.spec import CascadeSpec
from slimface.deploy.runtimes import FORMAT_OF, RUNTIMES
from slimface.deploy.runtimes.cascade import is_cascade
from slimface.errors import MissingError, ParityError, SlimfaceError, UsageError
from slimface.files import home
from slimface.loading import load_any

TORCH = "torch"

ALL = tuple(runtime for runtime in (TORCH, *FORMAT_OF) if runtime != "torchmobile")
"""What ``all`` stands for: everything but what its makers gave up."""

INT8 = "int8"

QUANTIZED = ("onnxruntime", "openvino")
"""Runtimes for which ``slimface quantize`` writes files of eight bits."""

_SECONDS = 1800
"""An export is given up after this time."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model in one runtime, precision and size, ready to run or refused."""

    model: str
    """As it was named."""

    source: str
    """What is opened: the file, or a name of the zoo."""

    runtime: str
    """Empty for a file that was given: it says itself when it is opened."""

    precision: str
    height: int
    width: int
    refused: str = ""

    @property
    def is_file(self) -> bool:
        """Whether this can be shipped: it is an exported file."""
        return is_exported(self.source)


def is_exported(source: str) -> bool:
    """Whether ``source`` is a file, or folder, that a runtime opens without torch's modules."""
    path = Path(source)
    return path.suffix.lower() in RUNTIMES or is_cascade(path)


def runtimes_named(text: str) -> tuple[str, ...]:
    """Return the runtimes of a list such as ``onnxruntime,ncnn``, or ``all``.

    Raises:
        UsageError: There is no such runtime.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("all",):
        return ALL
    wrong = [name for name in names if name != TORCH and name not in FORMAT_OF]
    if wrong or not names:
        raise UsageError(
            f"There is no runtime '{', '.join(wrong)}'.\n"
            f"Known: all, {TORCH}, {', '.join(FORMAT_OF)}."
        )
    return names


def contenders(
    model: str,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    *,
    cache: Path | None = None,
    calibrate_on: str = "drawn",
) -> Iterator[Contender]:
    """Yield what ``model`` is compared as; what is exported already stays as it is.

    Args:
        model: A name of the zoo, a checkpoint, or an exported file.
        runtimes: As ``runtimes_named`` gives them; none: the model as it is.
        precisions: Such as ``float32``; torch runs in float32 only.
        sizes: Heights and widths.
        cache: Folder of exported files; one below ``SLIMFACE_HOME`` if None.
        calibrate_on: What ``slimface quantize --data`` is given for files of eight bits.

    Raises:
        MissingError, CheckpointError, UsageError: The model cannot be opened.
    """
    if is_exported(model) or not runtimes:
        for height, width in sizes:
            runtime = "" if is_exported(model) else TORCH
            yield Contender(
                model, model, runtime, "" if runtime == "" else "float32", height, width
            )
        return
    opened = load_any(model)
    folder = (cache or home() / "benchmark") / f"{opened.fingerprint()[:16]}-{slimface.__version__}"
    is_folder = isinstance(opened.spec, CascadeSpec)
    for runtime in runtimes:
        if runtime == TORCH:
            for height, width in sizes:
                yield Contender(model, model, TORCH, "float32", height, width)
            continue
        for precision in precisions:
            for height, width in sizes:
                wanted = _Export(model, runtime, precision, height, width, calibrate_on)
                yield wanted.carried_out(folder, sizes[0], is_folder=is_folder)


@dataclass(frozen=True, slots=True)
class _Export:
    """A file that a matrix needs."""

    model: str
    runtime: str
    precision: str
    height: int
    width: int
    data: str

    @property
    def is_quantized(self) -> bool:
        return self.precision == INT8 and self.runtime in QUANTIZED

    def carried_out(self, folder: Path, first: tuple[int, int], *, is_folder: bool) -> Contender:
        """Export the file if it is not there; files of any size are traced at the first one."""
        from slimface.export.form import Fixed
        from slimface.export.formats import FORMATS

        kind = FORMATS[FORMAT_OF[self.runtime]]
        height, width = (self.height, self.width) if issubclass(kind, Fixed) else first
        suffix = "" if is_folder else kind.suffix
        stem = Path(self.model.partition(",")[0]).stem
        precision = self.precision
        if self.is_quantized:
            precision += f"-{hashlib.sha256(self.data.encode()).hexdigest()[:8]}"
        path = folder / f"{stem}-{self.runtime}-{precision}-{width}x{height}{suffix}"
        refused = ""
        if not path.exists():
            try:
                if not self.is_quantized:
                    self._check_precision(get_args(kind.model_fields["precision"].annotation))
                path.parent.mkdir(parents=True, exist_ok=True)
                _run(self._words(path, height, width))
            except SlimfaceError as error:
                refused = str(error)
        return Contender(
            self.model, str(path), self.runtime, self.precision, self.height, self.width, refused
        )

    def _check_precision(self, known: Collection[str]) -> None:
        if known and self.precision not in known:
            raise UsageError(
                f"{self.runtime} has files of precision {' or '.join(known)} here, not "
                f"{self.precision}.\nFiles of {INT8} are for {' and '.join(sorted(QUANTIZED))}."
            )

    def _words(self, path: Path, height: int, width: int) -> list[str]:
        """The command line that makes the file."""
        if self.is_quantized:
            verb = "quantize"
            options = {"--runtime": self.runtime, "--data": self.data}
        else:
            verb = "export"
            options = {
                "--format": FORMAT_OF[self.runtime],
                "--precision": self.precision,
                "--size": f"{width}x{height}",
            }
        words = [word for option in options.items() for word in option]
        return [verb, self.model, *words, "--out", str(path)]


def _run(words: list[str]) -> None:
    """Run a command of slimface in a process of its own; its error is ours."""
    alone = f"Try it alone: slimface {' '.join(words)}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "slimface", "--quiet", *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ParityError(
            f"It took more than {_SECONDS} seconds and was given up.\n{alone}"
        ) from None
    if done.returncode:
        _, found, said = done.stderr.strip().rpartition("Error: ")
        ended = f"The export ended with code {done.returncode}: {done.stderr.strip()[-500:]}"
        raise MissingError(said if found else f"{ended}\n{alone}")
