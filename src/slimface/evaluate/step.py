"""Evaluate: the step that scores the model as it stands."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from slimface.core.record import InputRule, Original
from slimface.core.value import Value
from slimface.data.folders import ClassSource
from slimface.deploy.pipeline import Predictor
from slimface.deploy.runtimes import open_class_file, open_exported
from slimface.deploy.runtimes.cascade import is_cascade, open_cascade
from slimface.errors import RecipeError, UsageError
from slimface.evaluate.accuracy import accuracy
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.network import Network
from slimface.model.predictor import class_pipeline, pipeline
from slimface.order import FILE, Terms
from slimface.step import Context

N = TypeVar("N", bound=Network)


class Evaluate(Value):
    """Average precision on the validation pictures, by the official protocol, stamped.

    For classifiers, accuracy on the test pictures; what is about boxes does not matter then.
    """

    kind: Literal["evaluate"] = "evaluate"
    of: Literal["model", "file"] = "model"
    """The model as it stands, in torch, or the file exported last, in its own runtime."""

    input: InputRule = Original(max_pixels=1700 * 1200)
    score_floor: float = Field(default=0.05, ge=0, le=1)
    nms_overlap: float = Field(default=0.3, gt=0, le=1)
    cap: int = Field(default=750, gt=0)
    landmarks: bool = False
    """Whether to measure the landmarks, too, where the pictures have them annotated."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(needs=frozenset({FILE} if self.of == "file" else ()), changes=False)

    def __call__(self, detector: N, context: Context) -> N:
        """Record the evaluation and return the model as it came."""
        if isinstance(detector, Classifier):
            self._of_classes(detector, context)
        else:
            assert isinstance(detector, Detector)
            self._of_faces(detector, context)
        return detector

    def _of_classes(self, classifier: Classifier, context: Context) -> None:
        if not isinstance(context.source, ClassSource):
            raise UsageError(
                f"{classifier.spec.name} is a classifier and needs pictures with classes.\n"
                "Name them with --data: pets, drawn-breeds, or folders:DIR."
            )
        pictures = context.source.labelled("test")
        predictor = class_pipeline(classifier, device=context.device)
        if self.of == "file":
            predictor = open_class_file(self._file(context))
        context.record("accuracy", accuracy(predictor, pictures, progress=context.track))

    def _of_faces(self, detector: Detector, context: Context) -> None:
        if context.source is None:
            raise UsageError("An evaluation needs pictures.\nName them with --data DIR.")
        pictures = context.source.pictures("val")
        evaluation = evaluate(
            self._predictor(detector, context),
            pictures,
            truth_of(pictures, context.source.folder()),
            rule=self.input,
            score_floor=self.score_floor,
            nms_overlap=self.nms_overlap,
            cap=self.cap,
            landmarks=self.landmarks,
            folder=context.folder / "detections",
            progress=context.track,
        )
        context.record("evaluation", evaluation)

    def _predictor(self, detector: Detector, context: Context) -> Predictor:
        if self.of == "model":
            return pipeline(detector, name=detector.spec.name, device=context.device)
        file = self._file(context)
        return open_cascade(file) if is_cascade(file) else open_exported(file)

    def _file(self, context: Context) -> Path:
        if not context.exported:
            raise RecipeError(
                "This evaluation is of an exported file, and no step before it exports one.\n"
                "Put an export step before it, or evaluate the model."
            )
        return context.exported[-1]
