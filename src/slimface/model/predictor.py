"""Predictor: a torch detector in the place of any other network of the pipeline."""

import numpy as np
import torch

from slimface.core.faces import Floats
from slimface.deploy.pipeline import RawFaces
from slimface.model.detector import Detector


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
