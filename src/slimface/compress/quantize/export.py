"""Float files and pictures for a quantisation, from a model and a run's pictures."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slimface.data.folders import ClassSource
from slimface.data.source import Source
from slimface.deploy.media import Picture, read_picture
from slimface.export.cascade import write_cascade
from slimface.export.form import Form
from slimface.export.onnx import Onnx
from slimface.model.classifier import Classifier
from slimface.model.mtcnn import MTCNN


def write_float(
    network: Any, folder: Path, form: Form | None = None, *, name: str = "float"
) -> Path:
    """Write a detector, a cascade or a classifier to a float file in ``folder``.

    Args:
        network: The model; unchanged.
        folder: Where to.
        form: What as; ONNX if not given.
        name: Of the file without its suffix, or of the cascade's folder.

    Raises:
        ParityError: The model cannot be exported.
    """
    form = form or Onnx()
    if isinstance(network, MTCNN):
        path = folder / name
        path.mkdir()
        write_cascade(network, path, form)
        return path
    path = folder / f"{name}{form.suffix}"
    if isinstance(network, Classifier):
        rule = network.spec.preprocess
        form = form.model_copy(update={"height": rule.height_px, "width": rule.width_px})
    form.write(network, path)
    return path


def spread(source: Source, split: str, count: int) -> Iterator[tuple[str, Picture]]:
    """Iterate over so many pictures of a split, evenly spread, the same ones every time."""
    of_classes = isinstance(source, ClassSource)
    named: Sequence[Any] = list(
        source.labelled(split).pictures if of_classes else source.pictures(split)  # type: ignore[arg-type, union-attr]
    )
    for i in range(min(count, len(named))):
        one = named[i * len(named) // min(count, len(named))]
        yield one.name, read_picture(one.path)


def first(pictures: Iterable[tuple[str, Picture]]) -> Picture:
    """Return the first picture."""
    return next(iter(pictures))[1]
