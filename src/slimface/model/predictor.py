"""Predictor: a torch detector in the place of any other network of the pipeline."""

import numpy as np
import torch

from slimface.core.faces import Floats
from slimface.deploy.cascade import Cascade, Networks
from slimface.deploy.classify import ClassPipeline
from slimface.deploy.pipeline import Pipeline, RawFaces
from slimface.errors import UsageError
from slimface.model.checkpoint import fingerprint
from slimface.model.classifier import Classifier
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN, Stage


class TorchNetwork:
    """A detector as ``deploy.pipeline.Network``: NumPy in, NumPy out, nothing kept for training.

    A detector in training is switched to evaluation mode for the time of each call, so it can be
    validated with it; then it must not be called from several threads.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.detector = detector.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.device = torch.device(device)
        self._layout = layout

    def __call__(self, images: Floats) -> RawFaces:
        """Predict from normalised float32 images ``(b, 3, height, width)``."""
        training = self.detector.training
        if training:
            self.detector.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
                raw = self.detector(batch.contiguous(memory_format=self._layout))
        finally:
            if training:
                self.detector.train()
        landmarks = raw.landmarks
        return RawFaces(
            raw.logits.float().cpu().numpy(),
            raw.offsets.float().cpu().numpy(),
            None if landmarks is None else landmarks.float().cpu().numpy(),
        )


class TorchClasses:
    """A classifier as ``deploy.classify`` wants it: normalised pictures in, logits out."""

    def __init__(self, classifier: Classifier, *, device: str | torch.device = "cpu") -> None:
        self.detector = classifier.to(device)
        self.device = torch.device(device)

    def __call__(self, images: Floats) -> Floats:
        """Return logits ``(b, classes)`` of float32 images ``(b, 3, height, width)``."""
        training = self.detector.training
        self.detector.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
                logits: Floats = self.detector(batch).float().cpu().numpy()
        finally:
            self.detector.train(training)
        return logits


def class_pipeline(
    classifier: Classifier, *, name: str = "", device: str | torch.device = "cpu"
) -> ClassPipeline:
    """Return a classifier, ready for pictures."""
    return ClassPipeline(
        classifier.spec,
        TorchClasses(classifier, device=device),
        name=name,
        runtime="torch",
        identity=lambda: fingerprint(classifier),
    )


class TorchCascade(Networks):
    """The nets of a cascade."""

    def __init__(self, detector: MTCNN, *, device: str | torch.device = "cpu") -> None:
        self.detector = detector
        # Few channels and pooling of odd sizes: on processors this order takes half the time.
        nets = (detector.pnet, detector.rnet, detector.onet)
        super().__init__(*(TorchNetwork(net, device=device, channels_last=True) for net in nets))


def pipeline(detector: Detector, *, name: str = "", device: str | torch.device = "cpu") -> Pipeline:
    """Return a detector of any kind, ready to find faces on pictures."""

    def identity() -> str:
        return fingerprint(detector)

    if isinstance(detector, MTCNN):
        nets = TorchCascade(detector, device=device)
        return Cascade(detector.spec, nets, name=name, runtime="torch", identity=identity)
    if isinstance(detector, Stage):
        raise UsageError(
            f"{detector.spec.name} is one net of a cascade and finds no faces of pictures alone.\n"
            "Name the cascade and where its net is, such as mtcnn,rnet=FILE."
        )
    network = TorchNetwork(detector, device=device)
    return Pipeline(detector.spec, network, name=name, runtime="torch", identity=identity)
