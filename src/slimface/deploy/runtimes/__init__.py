"""Networks in exported files: one module a runtime, all behind ``pipeline.Network``."""

from slimface.deploy.runtimes.description import (
    CANVAS_KEY,
    CLASS_NAMES,
    DECODED_NAMES,
    FILES_KEY,
    LANDMARKS_NAME,
    MAX_MODEL_BYTES,
    OUTPUTS_KEY,
    PICTURES_NAME,
    PROVENANCE_KEY,
    RAW_NAMES,
    SPEC_KEY,
    Description,
    read_model,
    sidecar_of,
)
from slimface.deploy.runtimes.onnxruntime import OnnxNetwork
from slimface.deploy.runtimes.opening import (
    FORMAT_OF,
    RUNTIMES,
    Opened,
    open_any_file,
    open_class_file,
    open_exported,
)

__all__ = [
    "CANVAS_KEY",
    "CLASS_NAMES",
    "DECODED_NAMES",
    "FILES_KEY",
    "FORMAT_OF",
    "LANDMARKS_NAME",
    "MAX_MODEL_BYTES",
    "OUTPUTS_KEY",
    "PICTURES_NAME",
    "PROVENANCE_KEY",
    "RAW_NAMES",
    "RUNTIMES",
    "SPEC_KEY",
    "Description",
    "OnnxNetwork",
    "Opened",
    "open_any_file",
    "open_class_file",
    "open_exported",
    "read_model",
    "sidecar_of",
]
