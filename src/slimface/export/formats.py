"""Every format a detector can be exported to, by name."""

import difflib
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from slimface.errors import UsageError
from slimface.export.cweights import CWeights
from slimface.export.executorch import ExecuTorch
from slimface.export.form import Form
from slimface.export.litert import LiteRt
from slimface.export.ncnn import Ncnn
from slimface.export.onnx import Onnx
from slimface.export.openvino import OpenVino
from slimface.export.torchscript import LegacyMobile, TorchScript

AnyFormat = Annotated[
    Onnx | OpenVino | Ncnn | ExecuTorch | LiteRt | TorchScript | LegacyMobile | CWeights,
    Field(discriminator="kind"),
]
"""A format in a recipe: ``{kind: ncnn, precision: float16}``."""

FORMATS: Mapping[str, type[Form]] = {
    "onnx": Onnx,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "executorch": ExecuTorch,
    "litert": LiteRt,
    "torchscript": TorchScript,
    "torchmobile": LegacyMobile,
    "cweights": CWeights,
}
"""Name -> format. A new one costs its module and its name here."""


def format_named(name: str) -> type[Form]:
    """Return the format of this name.

    Raises:
        UsageError: There is none; the message says the nearest.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"There is no format '{name}' to export to.\n{hint}Known: {', '.join(FORMATS)}."
    )
