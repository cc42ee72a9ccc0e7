"""Evaluate: the step that scores the model as it stands."""

from typing import Literal

from pydantic import Field

from slimface.core.record import InputRule, Original
from slimface.core.value import Value
from slimface.deploy.pipeline import Pipeline, Predictor
from slimface.deploy.runtimes import open_exported
from slimface.errors import RecipeError, UsageError
from slimface.evaluate.evaluator import evaluate
from slimface.evaluate.widerface import truth_of
from slimface.model.checkpoint import fingerprint
from slimface.model.detector import Detector
from slimface.model.predictor import TorchNetwork
from slimface.step import Context


class Evaluate(Value):
    """Average precision on the validation pictures, by the official protocol, stamped."""

    kind: Literal["evaluate"] = "evaluate"
    of: Literal["model", "file"] = "model"
    """The model as it stands, in torch, or the file exported last, in its own runtime."""

    input: InputRule = Original(max_pixels=1700 * 1200)
    score_floor: float = Field(default=0.05, ge=0, le=1)
    nms_overlap: float = Field(default=0.3, gt=0, le=1)
    cap: int = Field(default=750, gt=0)
    landmarks: bool = False
    """Whether to measure the landmarks, too, where the pictures have them annotated."""

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Record the evaluation and return the detector as it came."""
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
        return detector

    def _predictor(self, detector: Detector, context: Context) -> Predictor:
        if self.of == "model":
            return Pipeline(
                detector.spec,
                TorchNetwork(detector, device=context.device),
                name=detector.spec.name,
                runtime="torch",
                identity=lambda: fingerprint(detector),
            )
        if not context.exported:
            raise RecipeError(
                "This evaluation is of an exported file, and no step before it exports one.\n"
                "Put an export step before it, or evaluate the model."
            )
        return open_exported(context.exported[-1])
