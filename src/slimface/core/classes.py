"""Classes: what a classifier says about one picture."""

from dataclasses import dataclass

import numpy as np

from slimface.core.faces import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The classes of one picture, with their scores."""

    names: tuple[str, ...]
    """Of all classes, in the order of the network's outputs."""

    scores: Floats
    """Shape ``(classes,)``, in [0, 1], one in sum."""

    def best(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most likely classes and their scores, best first."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.names[i], float(self.scores[i])) for i in order]

    @property
    def label(self) -> int:
        """Index of the most likely class."""
        return int(self.scores.argmax())

    @property
    def name(self) -> str:
        """The most likely class."""
        return self.names[self.label]
