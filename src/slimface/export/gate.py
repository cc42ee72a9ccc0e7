"""The gate: every exported file is compared with its detector, and kept only if it agrees."""

import copy
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from slimface.deploy.pipeline import Picture, Pipeline
from slimface.errors import ParityError, UsageError
from slimface.export.cascade import write_cascade
from slimface.export.form import Form
from slimface.export.parity import TOLERANCES, ParityReport, Tolerance, parity
from slimface.export.pictures import sample_pictures
from slimface.files import beside_folder, together
from slimface.loading import load
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN
from slimface.model.predictor import TorchNetwork, pipeline

log = logging.getLogger(__name__)


class Format(Protocol):
    """A file format, with its options: ``slimface.export.form.Form`` and what is like it."""

    @property
    def suffix(self) -> str:
        """How the name of the file ends."""
        ...

    @property
    def precision(self) -> str:
        """What its numbers can be held to: float32, float16, int8."""
        ...

    def write(
        self, detector: Detector, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``path``, and what belongs to it beside it."""
        ...


def export(
    detector: Detector,
    path: Path,
    form: Format,
    *,
    pictures: Iterable[tuple[str, Picture]] | None = None,
    score: float = 0.3,
    tolerance: Tolerance | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Write a detector to a file and keep the file only if it finds the same faces.

    Args:
        detector: What to export; it stays as it is.
        path: Where to. A file that is there already is replaced at the very end.
        form: The format and its options, such as ``Onnx(decode=True)``.
        pictures: Names and pictures to compare on; scenes that come with slimface if not given.
        score: Faces below this score do not count, see ``slimface.export.parity``.
        tolerance: How far the file may differ; what its precision can be held to if not given.
        provenance: Where the detector comes from; stored in the file.

    Returns:
        How well the file agrees.

    Raises:
        ParityError: It does not, and was removed.
        UsageError: ``path`` has another suffix than the format (that of a cascade, which is a
            folder, any), or cannot be written.
    """
    if not path.name.endswith("" if isinstance(detector, MTCNN) else form.suffix):
        raise UsageError(
            f"{path}: the name must end in {form.suffix}.\nWrite {path.with_suffix(form.suffix)}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_folder = isinstance(detector, MTCNN) or getattr(form, "is_folder", False)
        with beside_folder(path) if is_folder else together(path) as part:
            if isinstance(detector, MTCNN):
                write_cascade(detector, part, cast(Form, form), provenance=provenance)
            else:
                form.write(detector, part, provenance=provenance)
            own = isinstance(form, Form) and not isinstance(detector, MTCNN)
            candidate = cast(Form, form).open(part) if own else load(part)
            report = parity(
                reference(detector, candidate),
                candidate,
                sample_pictures() if pictures is None else pictures,
                score=score,
                tolerance=tolerance or TOLERANCES[form.precision],
                names=(detector.spec.name, path.name),
            )
            _check(report)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.\nChoose another place with --out."
        ) from error
    log.info("%s: %s", path, report.explain().partition("\n")[0])
    return report


def reference(detector: Detector, candidate: Pipeline) -> Pipeline:
    """Return a detector in torch that is fed as ``candidate`` is."""
    if isinstance(detector, MTCNN):
        return pipeline(copy.deepcopy(detector))
    return Pipeline(detector.spec, TorchNetwork(copy.deepcopy(detector)), canvas=candidate.canvas)


def _check(report: ParityReport) -> None:
    """Raise ParityError unless the two sides of a report agree."""
    if report.agrees:
        return
    advice = (
        "Nothing was kept. `slimface parity` shows where other files and pictures differ; "
        "a wider --tolerance accepts it."
        if report.faces
        else "Nothing was kept. Compare on pictures that show faces (--pictures DIR), or at a "
        "lower --score."
    )
    raise ParityError(f"{report.explain()}.\n{advice}")
