"""Open any model: a name of the zoo, a checkpoint, or an exported file."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from slimface.deploy.classify import ClassPipeline
from slimface.deploy.pipeline import Pipeline
from slimface.deploy.runtimes import RUNTIMES, open_any_file, open_exported
from slimface.deploy.runtimes.bundle import bundled
from slimface.deploy.runtimes.cascade import is_cascade, open_cascade
from slimface.errors import CheckpointError, MissingError, UsageError

PICKLES = frozenset({".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar"})
CHECKPOINT = ".safetensors"
COMPOSED = re.compile(r",\w+=")
"""What names a cascade whose nets come from several places; see ``slimface.model.cascade``."""


Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and all that will."""


def load(
    source: str | Path,
    *,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Pipeline:
    """Open a detector, whatever it is stored in.

    Args:
        source: A name of the zoo (``eresfd``; see ``slimface zoo``), a ``.safetensors``
            checkpoint, or an exported file (``.onnx``; a cascade: its folder; a bundle: its first
            file). Exported files need no torch. ``mtcnn,rnet=FILE`` is a cascade with another net.
        threads: Threads to compute with; None leaves it to the runtime.
        device: Where torch computes; exported files run on the processor.
        progress: Told how a download goes, where weights of the zoo are not here yet.

    Raises:
        MissingError: The file or an optional package is not there.
        UsageError: No model has this name, or the file is of no kind that can be opened.
        CheckpointError: The file is broken, foreign, or a pickle.
    """
    if COMPOSED.search(str(source)):
        return _load_with_torch(str(source), threads, device, progress)
    path = bundled(Path(source))
    suffix = path.suffix.lower()
    folder = is_cascade(path)
    if suffix in RUNTIMES or folder:
        if device != "cpu":
            raise UsageError(
                f"{path} is an exported file, which runs on the processor, not on {device}.\n"
                "Leave the device out, or load the checkpoint it was exported from."
            )
        return (open_cascade if folder else open_exported)(path, threads=threads)
    if suffix == CHECKPOINT:
        return _load_with_torch(path, threads, device, progress)
    if suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickled file; opening it could run any code, and it does not say what "
            "it is.\nPublished weights are opened by their name (slimface zoo lists them). "
            f"Others: slimface.model.zoo.import_weights reads tensors alone; save them as "
            f"{CHECKPOINT}."
        )
    if path.parent != Path() or (suffix and path.is_file()):
        kinds = ", ".join([CHECKPOINT, *RUNTIMES])
        raise UsageError(
            f"{path} is not a model: models are names of the zoo or files ending in {kinds}.\n"
            "List the names with: slimface zoo"
        )
    return _load_with_torch(str(source), threads, device, progress)


def load_any(
    source: str | Path,
    *,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Pipeline | ClassPipeline:
    """Open a detector or a classifier, whichever it is; arguments and errors as for ``load``."""
    path = bundled(Path(source))
    suffix = path.suffix.lower()
    if suffix in RUNTIMES and device == "cpu" and not is_cascade(path):
        return open_any_file(path, threads=threads)
    if suffix != CHECKPOINT or COMPOSED.search(str(source)):
        return load(source, threads=threads, device=device, progress=progress)
    try:
        from slimface.model.checkpoint import load_checkpoint
        from slimface.model.classifier import Classifier
        from slimface.model.predictor import class_pipeline
    except ImportError:
        # It says what to install.
        return load(source, threads=threads, device=device, progress=progress)
    network = load_checkpoint(path).network
    if isinstance(network, Classifier):
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return class_pipeline(network, name=path.stem, device=device)
    return load(source, threads=threads, device=device, progress=progress)


def load_classifier(
    source: str | Path, *, threads: int | None = None, device: str = "cpu"
) -> ClassPipeline:
    """Open a classifier: a checkpoint, or an exported file, which needs no torch.

    Raises:
        UsageError: It is a detector.
        MissingError, CheckpointError: As for ``load``.
    """
    opened = load_any(source, threads=threads, device=device)
    if not isinstance(opened, ClassPipeline):
        raise UsageError(
            f"{source} is a detector, and a classifier is needed here.\n"
            "Detectors are for: slimface detect. Train a classifier: slimface train "
            "classifier:resnet18 --data drawn-breeds"
        )
    return opened


def _load_with_torch(
    source: str | Path, threads: int | None, device: str, progress: Progress | None
) -> Pipeline:
    try:
        import torch

        from slimface.model import checkpoint, zoo
        from slimface.model.cascade import open_composed
        from slimface.model.predictor import pipeline
    except ImportError as error:
        if error.name is None or error.name.startswith("slimface"):
            raise
        raise MissingError(
            f"opening {source} needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[train]', or use an exported .onnx file, "
            "which needs no torch."
        ) from error
    if isinstance(source, Path):
        detector = checkpoint.load_checkpoint(source).detector
        name = source.stem
    elif COMPOSED.search(source):
        detector, _ = open_composed(source, progress=progress)
        name = source
    else:
        _check_name(source, [known.name for known in zoo.entries()])
        detector = zoo.load(source, progress=progress)
        name = source
    if threads is not None:
        torch.set_num_threads(threads)
    return pipeline(detector, name=name, device=device)


def _check_name(name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise UsageError(
        f"there is no model '{name}' in the zoo{hint}\n"
        f"Names are {', '.join(known)}; files end in {', '.join([CHECKPOINT, *RUNTIMES])}."
    )
