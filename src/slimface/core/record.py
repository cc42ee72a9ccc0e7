"""Records: results exactly as they stand on disk, and the protocol that makes them comparable."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from slimface.core.value import Value

Fraction = Annotated[float, Field(ge=0, le=1)]

REFERENCE_PIXELS = 1700 * 1200
"""Pictures with more pixels are scaled down to this many by the published test procedure."""


class Original(Value):
    """Pictures at their own size."""

    kind: Literal["original"] = "original"
    max_pixels: int | None = Field(default=None, gt=0)
    """Pictures with more pixels (height x width) are scaled down to this many."""

    def __str__(self) -> str:
        return "original" if self.max_pixels is None else f"original, {self.max_pixels} px at most"


class Longest(Value):
    """Pictures resized so that the longer side has a given length."""

    kind: Literal["longest"] = "longest"
    longest_px: int = Field(gt=0)

    def __str__(self) -> str:
        return f"longest:{self.longest_px}"


class Fitted(Value):
    """Pictures made smaller until they fit into the input of a benchmark, never larger."""

    kind: Literal["fitted"] = "fitted"
    height_px: int = Field(gt=0)
    width_px: int = Field(gt=0)

    def __str__(self) -> str:
        return f"fit:{self.width_px}x{self.height_px}"


class Multiscale(Value):
    """Several sizes and a mirrored pass, merged by box voting: the published test procedure."""

    kind: Literal["multiscale"] = "multiscale"
    max_pixels: int = Field(default=REFERENCE_PIXELS, gt=0)
    """No pass sees more pixels than this."""

    keep_lone: bool = False
    """Whether a box that no second box supports stays. The published pruning systems drop it; the
    published evaluation of EResFD keeps it."""

    vote_overlap: float = Field(default=0.3, gt=0, le=1)
    """Boxes that overlap the best one by this much vote with it."""

    def __str__(self) -> str:
        lone = "kept" if self.keep_lone else "dropped"
        return f"multiscale, lone boxes {lone}"


class External(Value):
    """Another program made the detections; nobody told us from which input."""

    kind: Literal["external"] = "external"

    def __str__(self) -> str:
        return "external"


InputRule = Annotated[
    Original | Longest | Fitted | Multiscale | External, Field(discriminator="kind")
]


class Protocol(Value):
    """Everything besides the model that moves an average precision.

    Figures may stand side by side if, and only if, their protocols are equal.
    """

    evaluator: str
    """Name and version of the scoring procedure: ``widerface-1``."""

    truth: str
    """Name of the ground truth: ``wider-val``."""

    truth_sha256: str
    """Hash of the faces that were scored against: pictures, boxes, and what counts."""

    pictures: int = Field(ge=0)
    """Number of pictures that were scored."""

    pictures_in_truth: int = Field(ge=0)
    """Number of pictures of the whole ground truth; more than ``pictures`` when part was scored."""

    input: InputRule
    score_floor: Fraction | None
    """Detections below were dropped. None, here and below: another program decided."""

    nms_overlap: Fraction | None
    pre_nms: int | None
    cap: int | None

    @property
    def stamp(self) -> str:
        """A short name of this protocol: equal protocols have equal stamps."""
        return self.fingerprint()[:8]

    @property
    def scope(self) -> str:
        """Which pictures, in words that keep a part from passing as the whole."""
        if self.pictures == self.pictures_in_truth:
            return f"{self.truth} ({self.pictures} pictures)"
        return f"{self.truth} part {self.pictures}/{self.pictures_in_truth}"

    def difference(self, other: "Protocol") -> tuple[str, object, object] | None:
        """Return the first field in which two protocols differ and both values, or None."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return name, mine, theirs
        return None


class PrecisionRecall(Value):
    """A precision-recall curve, from the strictest threshold to the most lenient."""

    recall: tuple[Fraction, ...]
    precision: tuple[Fraction, ...]


class SubsetResult(Value):
    """How well the faces of one subset were found."""

    name: str
    """``easy``, ``medium``, ``hard``; ``all``; or a range of heights such as ``16-32 px``."""

    average_precision: Fraction | None
    """In [0, 1]; None for a subset without faces, which has no average precision."""

    faces: int = Field(ge=0)
    """Faces of the subset that count."""

    low: Fraction | None = None
    """Lower end of the 95 % bootstrap interval over pictures; None where it was not asked for."""

    high: Fraction | None = None
    resampled: tuple[Fraction, ...] = ()
    """Average precision of each bootstrap resample. Two evaluations of one protocol draw the same
    pictures, so these can be compared in pairs."""

    curve: PrecisionRecall | None = None


class LandmarkError(Value):
    """How far the landmarks of found faces are from the annotated ones.

    Distances are means over the five points of a face, in fractions of the distance between its
    eyes.
    """

    mean: float | None = Field(ge=0)
    """Over ``faces``; None where none was found."""

    median: float | None = Field(ge=0)
    failures: Fraction | None
    """Share of ``faces`` with a distance above ``failure_above``."""

    failure_above: float = Field(gt=0)
    faces: int = Field(ge=0)
    """Annotated faces with five landmarks that were found."""

    annotated: int = Field(ge=0)
    """Annotated faces with five landmarks."""

    match_overlap: Fraction
    """Overlap of the boxes from which a face counts as found."""


class Evaluation(Value):
    """How well a model found faces, with all that is needed to believe or repeat the figure."""

    kind: Literal["evaluation"] = "evaluation"
    model: str
    """Name of the model for people."""

    model_fingerprint: str
    """SHA-256 of the model's spec and tensors, or of the predictions that were scored."""

    protocol: Protocol
    subsets: tuple[SubsetResult, ...]
    by_height: tuple[SubsetResult, ...] = ()
    """The faces of all subsets by their height in pixels of the original picture."""

    landmarks: LandmarkError | None = None
    """None where it was not asked for."""

    detections: int = Field(ge=0)
    """Boxes that were scored."""

    seconds: float | None = Field(default=None, ge=0)
    """Time spent detecting, summed over pictures (reading them included)."""

    command: tuple[str, ...] = ()
    """The command line that made this."""

    date: datetime
    """When it was finished, in UTC."""

    version: str
    """Version of slimface."""

    @property
    def stamp(self) -> str:
        """The stamp of the protocol; show it beside each figure."""
        return self.protocol.stamp

    def subset(self, name: str) -> SubsetResult:
        """Return the result of the subset with this name.

        Raises:
            KeyError: There is none.
        """
        for result in self.subsets:
            if result.name == name:
                return result
        raise KeyError(f"no subset {name!r}; there are {[result.name for result in self.subsets]}")
