"""Settings of a quantisation, as a value: the same in a recipe and on the command line."""

import json
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from slimface.compress.quantize.ranges import Method
from slimface.core.grid import GRID_KEY
from slimface.core.value import Value
from slimface.deploy.runtimes import PROVENANCE_KEY


class Rounding(Value):
    """How weights and activations become eight bits."""

    ranges: Method | Literal["best"] = "best"
    """How the range of a tensor is chosen from what it held on the calibration pictures; ``best``
    measures which way disturbs the outputs least."""

    keep: tuple[str, ...] = ("auto",)
    """Layers that stay in float32: parts of their names, or ``stem`` (the first layer), ``heads``
    (the last ones), ``none``; ``auto`` measures which ones have to."""

    sqnr_db: float | None = Field(default=None, gt=0, le=60)
    """What ``auto`` aims at: signal over noise of every output, in decibels. Each layer more in
    float32 costs bytes and time. None: see ``aim_db``."""

    equalise: bool | None = None
    """Even the ranges of channels out first, which changes nothing in float32. None: where it
    measurably helps."""

    correct: bool | None = False
    """Correct biases by the mean of what rounding the weights costs. None: where there is less
    noise with it. That mean is one of backgrounds: it makes less noise and finds fewer faces."""

    reduce_range: bool = False
    """Weights of seven bits, for x86 processors without VNNI, whose 16-bit sums overflow."""

    bits: Literal[4, 8] = 8
    """Of weights; what layers put out always has eight. With four, ``auto`` leaves eight to layers
    that are too loud. A smaller file, not a faster one: ONNX Runtime, which alone reads it,
    computes layers of four bits in float32. They cost accuracy."""

    def aim_db(self, *, whole: bool) -> float:
        """Return what ``auto`` aims at: 16 dB, and 24 for a net of a cascade.

        What one net of a cascade gets wrong the next never sees, and the thin layers to blame weigh
        next to nothing. Hardly a layer would have four bits for that.

        Args:
            whole: Whether the network is all there is of a model.
        """
        if self.sqnr_db is not None:
            return self.sqnr_db
        return 16.0 if whole or self.bits < 8 else 24.0


class Quantization(Rounding):
    """How a file of eight bits is made, and for which runtime."""

    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """Whose file is written. ONNX Runtime's is a QDQ graph, which OpenVINO and OpenCV read, too;
    OpenVINO's is made by NNCF and has OpenVINO's format."""

    @model_validator(mode="after")
    def _four_are_for_one_runtime(self) -> Self:
        if self.bits == 4 and self.runtime != "onnxruntime":
            raise ValueError(
                "weights of 4 bits are written for ONNX Runtime alone; leave runtime at onnxruntime"
            )
        return self


def told(metadata: Mapping[str, str], settings: Quantization, **versions: str) -> dict[str, str]:
    """Return the metadata of a float file as that of the quantised one."""
    story = json.loads(metadata.get(PROVENANCE_KEY, "{}"))
    story["export"] = {**story.get("export", {}), "precision": "int8"}
    story["quantization"] = settings.model_dump(mode="json")
    # The grid is in the file now.
    kept = {key: value for key, value in metadata.items() if key != GRID_KEY}
    return {**kept, PROVENANCE_KEY: json.dumps({**story, **versions}, sort_keys=True)}
