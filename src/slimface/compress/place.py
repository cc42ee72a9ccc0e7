"""Place: where milliseconds are measured, and how a network gets there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from slimface.bench.side_by_side import network_ms
from slimface.core.budget import Budget
from slimface.core.value import Value
from slimface.deploy.runtimes import FORMAT_OF
from slimface.errors import UsageError
from slimface.export.formats import FORMATS
from slimface.model.network import Network

Floats = npt.NDArray[np.float64]

MEASURABLE = tuple(runtime for runtime in FORMAT_OF if runtime != "torchmobile")
"""Runtimes for which a network is exported to be measured; not the one its makers gave up."""


class Place(Value):
    """Where milliseconds are measured. They are those of the network, for one picture."""

    runtime: str = "onnxruntime"
    threads: int = Field(default=1, gt=0)
    height_px: int = Field(default=480, gt=0)
    width_px: int = Field(default=640, gt=0)

    @classmethod
    def of(cls, budget: Budget, *, height_px: int = 480, width_px: int = 640) -> Self:
        """Return the place that a budget names; the size if it names none.

        Raises:
            UsageError: Nothing can be exported for that runtime.
        """
        if budget.runtime not in MEASURABLE:
            raise UsageError(
                f"The budget {budget} names the runtime {budget.runtime!r}, for which nothing can "
                f"be exported.\nThere are {', '.join(MEASURABLE)}."
            )
        height, width = budget.size_px or (height_px, width_px)
        threads = budget.threads or 1
        return cls(runtime=budget.runtime, threads=threads, height_px=height, width_px=width)

    def __str__(self) -> str:
        return f"{self.runtime}:{self.threads}t:{self.width_px}x{self.height_px}"

    def export(self, network: Network, folder: Path) -> Path:
        """Write ``network`` into ``folder`` as this runtime takes it, and return the file.

        Raises:
            MissingError, ParityError: As the format says.
        """
        kind = FORMAT_OF[self.runtime]
        form = FORMATS[kind](kind=kind, height=self.height_px, width=self.width_px)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"model{form.suffix}"
        # Formats take any network that they can trace.
        form.write(network, path)  # type: ignore[arg-type]
        return path

    def network_ms(self, files: Sequence[Path], *, rounds: int = 12) -> Floats:
        """Return the milliseconds of the networks of exported files, measured side by side."""
        return network_ms(
            files,
            threads=self.threads,
            height=self.height_px,
            width=self.width_px,
            rounds=rounds,
        )
