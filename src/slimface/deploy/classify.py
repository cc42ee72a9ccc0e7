"""From an 8-bit picture of any size to its class, by the spec alone."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from slimface.core.classes import Classes
from slimface.core.faces import Floats
from slimface.core.spec import ClassifierSpec
from slimface.deploy.media import Picture, read_picture
from slimface.deploy.pipeline import Source, Timing
from slimface.deploy.preprocess import Normaliser, check_picture, fitted
from slimface.errors import CheckpointError, UsageError


class ClassPipeline:
    """A network with the pre- and postprocessing of its spec.

    May be called from several threads if its network may.
    """

    def __init__(
        self,
        spec: ClassifierSpec,
        network: Callable[[Floats], Any],
        *,
        name: str = "",
        runtime: str = "python",
        identity: Callable[[], str] | None = None,
    ) -> None:
        """Join a spec and a network.

        Args:
            spec: How pictures are fed to the network and what its classes are called.
            network: From normalised ``(b, 3, height, width)`` float32 to logits ``(b, classes)``.
            name: For people; the spec's name if empty.
            runtime: What runs the network, for tables.
            identity: Gives the SHA-256 of all that decides what is answered.
        """
        self.spec = spec
        self.network = network
        self.name = name or spec.name
        self.runtime = runtime
        self._identity = identity
        self._normalise = Normaliser(spec.preprocess)
        deviation = np.asarray(spec.preprocess.deviation, dtype=np.float32)
        if spec.preprocess.colour == "bgr":
            deviation = deviation[::-1]
        self._factor = (1 / deviation).reshape(1, 3, 1, 1).astype(np.float32)

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes whenever the model may answer something else.

        Raises:
            UsageError: The network has no identity: it was given as a bare function.
        """
        if self._identity is None:
            raise UsageError(
                "this pipeline was made around a bare network and has no fingerprint.\n"
                "Load the model from a file, or give ClassPipeline(identity=...)."
            )
        return self._identity()

    def classify(self, picture: Source) -> Classes:
        """Return the classes of one picture, or of its file.

        Raises:
            UsageError: The picture is no 8-bit array of shape ``(height, width, 3)``.
            DataError: The file is no readable picture.
            CheckpointError: The network's answers do not fit the spec, or are not numbers.
        """
        return self.classify_timed(picture)[0]

    def classify_timed(self, picture: Source) -> tuple[Classes, Timing]:
        """As ``classify``, and where the milliseconds went."""
        clock = time.perf_counter
        start = clock()
        pixels = read_picture(picture) if isinstance(picture, str | Path) else picture
        check_picture(pixels)
        read = clock()
        images = self.prepare([pixels])
        resized = clock()
        logits = self.network(images)
        answered = clock()
        classes = self._read(logits)[0]
        marks = (start, read, resized, answered, clock())
        return classes, Timing(*(1e3 * (b - a) for a, b in pairwise(marks)))

    def classify_batch(self, pictures: Sequence[Picture]) -> list[Classes]:
        """Return the classes of each picture; one call of the network for all of them."""
        for picture in pictures:
            check_picture(picture)
        return self._read(self.network(self.prepare(pictures))) if pictures else []

    def prepare(self, pictures: Sequence[Picture]) -> Floats:
        """Return the network's input: fitted to its size and normalised.

        The array is used again: it is valid until the next call in the same thread.
        """
        rule = self.spec.preprocess
        sized = [fitted(picture, rule) for picture in pictures]
        images = self._normalise(sized, rule.height_px, rule.width_px)
        images *= self._factor
        return images

    def _read(self, logits: Any) -> list[Classes]:
        logits = np.asarray(logits, dtype=np.float32)
        count = len(self.spec.classes)
        if logits.ndim != 2 or logits.shape[1] != count:
            raise CheckpointError(
                f"{self.name}: the network answers with an array of shape {logits.shape}, its spec "
                f"has {count} classes.\nThe file and its spec do not belong together; export or "
                "save the model again."
            )
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"{self.name}: the network answers with values that are infinite or no numbers "
                "(NaN).\nIts weights are damaged or its training diverged; use an earlier "
                "checkpoint."
            )
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = odds / odds.sum(axis=1, keepdims=True)
        return [Classes(self.spec.classes, row) for row in scores]
