"""Classes: a classifier's file is kept only if it answers what the classifier does."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from slimface.core.value import Value
from slimface.data.drawn_breeds import draw_head, looks_of
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.pipeline import Picture
from slimface.deploy.runtimes import open_class_file
from slimface.errors import ParityError, UsageError
from slimface.export.form import Form
from slimface.files import together
from slimface.model.classifier import Classifier
from slimface.model.predictor import class_pipeline

DRAWN = 32


class ClassParity(Value):
    """How well a classifier and its file agree."""

    pictures: int = Field(gt=0)
    same_class: int
    """Pictures of which both have the same most likely class."""

    largest_difference: float
    """Of any score of any picture."""

    tolerance: float
    least_same: float

    @property
    def agrees(self) -> bool:
        """Whether the file may stay."""
        share = self.same_class / self.pictures
        return self.largest_difference <= self.tolerance and share >= self.least_same

    def explain(self) -> str:
        """Return a sentence for people."""
        return (
            f"the same class for {self.same_class} of {self.pictures} pictures, scores within "
            f"{self.largest_difference:.1e}"
        )


TOLERANCES: Mapping[str, tuple[float, float]] = {
    "float32": (1e-3, 1.0),
    "float16": (0.02, 0.99),
    "int8": (1.0, 0.9),
}
"""Precision -> largest difference of a score, least share of equal classes. What eight bits cost
is a question for `slimface evaluate`; the gate only refuses what is another model."""


def export_classifier(
    classifier: Classifier,
    path: Path,
    form: Form,
    *,
    pictures: Iterable[tuple[str, Picture]] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ClassParity:
    """Write a classifier to a file and keep the file only if both answer alike.

    Args:
        classifier: What to export; it stays as it is.
        path: Where to. A file that is there already is replaced at the very end.
        form: The format and its options; its size becomes that of the classifier.
        pictures: Names and pictures to compare on; drawn ones if not given.
        provenance: Where the classifier comes from; stored in the file.

    Returns:
        How well the file agrees.

    Raises:
        ParityError: It does not, and was removed.
        UsageError: ``path`` has another suffix than the format, or there is nothing to decode.
    """
    if not path.name.endswith(form.suffix):
        raise UsageError(
            f"{path}: the name must end in {form.suffix}.\nWrite {path.with_suffix(form.suffix)}."
        )
    if form.decode:
        raise UsageError(
            f"{classifier.spec.name} is a classifier; there are no boxes to decode.\n"
            "Leave --decode out."
        )
    rule = classifier.spec.preprocess
    form = form.model_copy(update={"height": rule.height_px, "width": rule.width_px})
    path.parent.mkdir(parents=True, exist_ok=True)
    with together(path) as part:
        # Formats take any module that they can trace, with a spec.
        form.write(classifier, part, provenance=provenance)  # type: ignore[arg-type]
        report = compared(
            class_pipeline(copy.deepcopy(classifier)),
            open_class_file(part),
            drawn_heads() if pictures is None else pictures,
            precision=form.precision,
        )
        if not report.agrees:
            raise ParityError(
                f"{path.name} is not {classifier.spec.name}: {report.explain()}.\n"
                "Nothing was kept. Try another --opset or format."
            )
    return report


def drawn_heads() -> Iterator[tuple[str, Picture]]:
    """Return the pictures that are compared on where none are given, the same everywhere."""
    for i in range(DRAWN):
        yield f"head {i}", draw_head(looks_of(i % 16, 0), np.random.default_rng((11, i)), 96)


def compared(
    reference: ClassPipeline,
    candidate: ClassPipeline,
    pictures: Iterable[tuple[str, Picture]],
    *,
    precision: str = "float32",
) -> ClassParity:
    """Compare what two classifiers answer.

    Args:
        reference: The side that is right.
        candidate: The side that is checked.
        pictures: Names and pictures.
        precision: What the candidate can be held to.

    Raises:
        UsageError: There is no picture.
    """
    count = same = 0
    apart = 0.0
    for _, picture in pictures:
        first, second = reference.classify(picture), candidate.classify(picture)
        count += 1
        # Two classes may be equally likely, as they are to a classifier that has learnt nothing.
        tie = float(first.scores[first.label] - first.scores[second.label])
        same += first.label == second.label or tie <= 1e-5
        apart = max(apart, float(np.abs(first.scores - second.scores).max()))
    if not count:
        raise UsageError("There is no picture to compare on.\nName a folder that holds some.")
    tolerance, least = TOLERANCES[precision]
    return ClassParity(
        pictures=count,
        same_class=same,
        largest_difference=apart,
        tolerance=tolerance,
        least_same=least,
    )
