"""Crops: what the nets of a cascade learn from, cut out of annotated pictures.

Each net sees in training what it sees in detection: windows by the rules of the spec, resized as
the cascade resizes. The first net's are drawn at random, the others' are what the nets before them
have let through, so their negatives are the mistakes of these nets.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016, arXiv:1604.02878, section II.C. The numbers of tries and the thresholds are those
of its published PyTorch reimplementations.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from slimface.core.boxes import Indices, overlaps
from slimface.core.faces import LANDMARK_NAMES, Faces, Floats
from slimface.core.record import Fraction
from slimface.core.spec import CELL_PX, CascadeSpec
from slimface.core.value import Value
from slimface.data.pictures import Annotated
from slimface.deploy.cascade_geometry import Geometry
from slimface.deploy.crops import Windowed, Windows
from slimface.deploy.media import read_picture

Records = npt.NDArray[np.void]
Net = Literal["pnet", "rnet", "onet"]

SIDES: Mapping[Net, int] = {"pnet": CELL_PX, "rnet": 24, "onet": 48}
"""Height and width of the crops of each net."""

_ROUNDS = 20
"""Negatives are drawn in rounds of as many as are wanted; a picture full of faces has fewer."""


class Kind(IntEnum):
    """What a crop teaches."""

    NEGATIVE = 0
    """No face."""

    POSITIVE = 1
    """A face, and where it is."""

    PART = 2
    """Where a face is of which the crop shows a part; it is neither a face nor none."""

    LANDMARK = 3
    """Where a face and its landmarks are."""


class Cuts(Value):
    """Which crops are cut."""

    smallest_px: float = Field(default=40, gt=0)
    """Faces whose longer side is shorter than this teach nothing; they are no background either."""

    negatives: int = Field(default=35, ge=0)
    """Drawn anywhere on each picture; for the later nets they fill up what was mined."""

    near: int = Field(default=5, ge=0)
    """Tries of a negative that overlaps each face a little, for the first net."""

    tries: int = Field(default=20, ge=0)
    """Windows drawn around each face, for the first net."""

    landmark_tries: int = Field(default=15, ge=0)
    """Windows drawn around each face whose landmarks are annotated, for the last net."""

    positive_overlap: Fraction = 0.65
    """Intersection over union from which a window shows a face."""

    part_overlap: Fraction = 0.4
    """From here on it shows a part of one."""

    drawn_overlap: Fraction = 0.3
    """Drawn windows that overlap no face by so much are negatives."""

    mined_overlap: Fraction = 0.2
    """The same for windows that the nets before have let through."""

    parts_share: float = Field(default=1.2, ge=0)
    """At most so many parts a positive."""

    negatives_share: float = Field(default=3.0, ge=0)
    """At most so many mined negatives a positive, the best scored first; 1 was published for the
    last net."""


class Finder(Protocol):
    """The nets before the one that is to learn; ``deploy.cascade.Cascade`` is one."""

    def seen_by(self, net: Literal["rnet", "onet"], view: Windowed) -> Floats:
        """Return the boxes that a net gets to see, best scored first."""
        ...


class Candidates(NamedTuple):
    """Boxes of one picture to cut, of each kind the most wanted first."""

    boxes: Floats
    """Shape ``(n, 4)``, as the cascade counts pixels."""

    kinds: npt.NDArray[np.int8]
    faces: npt.NDArray[np.intp]
    """Which face of the picture each is about; of no meaning for negatives."""

    def select(self, index: Indices) -> "Candidates":
        """Return the candidates at these places."""
        return Candidates(self.boxes[index], self.kinds[index], self.faces[index])

    def __add__(self, other: "Candidates") -> "Candidates":  # type: ignore[override]
        """Return these and then the others."""
        return Candidates(
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.kinds, other.kinds]),
            np.concatenate([self.faces, other.faces]),
        )


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the crops of one net, always the same of the same picture."""

    net: Net
    spec: CascadeSpec
    cuts: Cuts
    seed: int
    finder: Finder | None = None
    """The nets before this one; none for the first."""

    def records(self, pictures: Iterable[Annotated]) -> Records:
        """Return the crops of some pictures; shares of kinds are kept over all of them.

        Raises:
            MissingError, DataError: A picture is not there or cannot be read; its file is named.
        """
        taken = dict.fromkeys(Kind, 0)
        parts = [self._cut(one, taken) for one in pictures]
        return np.concatenate([np.zeros(0, record_type(SIDES[self.net])), *parts])

    def _cut(self, one: Annotated, taken: dict[Kind, int]) -> Records:
        view = Windowed(read_picture(one.path), self.spec.resize)
        geometry = Geometry(self.spec)
        # Of the name, not of the number: a picture gives the same crops in a larger set, too.
        digest = hashlib.sha256(one.name.encode()).digest()
        rng = np.random.default_rng([self.seed, *np.frombuffer(digest, np.uint32).tolist()])
        size = view.height, view.width
        learnable = _learnable(one, self.cuts, size)
        if self.finder is None or self.net == "pnet":
            # Their boxes are the windows: the published nets answer in fractions of the crop,
            # though what detection takes for the box of a cell may begin a pixel later.
            windows, found = _drawn(rng, one.faces.boxes, learnable, size, self.cuts)
            chosen = self._chosen(found.kinds, taken)
            windows = windows[chosen]
        else:
            boxes = self.finder.seen_by(self.net, view)
            found = _mined(boxes, one.faces.boxes, learnable, self.cuts, geometry)
            # Good nets make few mistakes on what they have learnt from: places anywhere fill up.
            _, extra = _gathered(
                [(_background(rng, one.faces.boxes, size, self.cuts), Kind.NEGATIVE, 0)]
            )
            found = found + extra._replace(boxes=geometry.boxes_of_windows(extra.boxes))
            if self.net == "onet":
                extra = _around_landmarks(rng, one.faces, learnable, size, self.cuts)
                extra = extra._replace(boxes=geometry.boxes_of_windows(extra.boxes))
                found = found + extra
            chosen = self._chosen(found.kinds, taken)
            windows = geometry.windows(found.boxes[chosen], *size)
        records = _described(found.select(chosen), windows, one, geometry, self.net)
        pixels = view.crops(windows, SIDES[self.net])
        records["pixels"] = np.rint(pixels).astype(np.uint8).transpose(0, 2, 3, 1)
        return records

    def _chosen(self, kinds: npt.NDArray[np.int8], taken: dict[Kind, int]) -> Indices:
        """Return which candidates are taken, so that no kind outgrows its share."""
        chosen = []
        shares = {
            Kind.POSITIVE: math.inf,
            Kind.LANDMARK: math.inf,
            Kind.PART: self.cuts.parts_share,
        }
        shares[Kind.NEGATIVE] = math.inf if self.net == "pnet" else self.cuts.negatives_share
        for kind, share in shares.items():
            found = np.flatnonzero(kinds == kind)
            if math.isfinite(share):
                room = math.ceil(share * taken[Kind.POSITIVE] + 1) - taken[kind]
                found = found[: max(room, 0)]
            taken[kind] += len(found)
            chosen.append(found)
        return np.sort(np.concatenate(chosen))


def record_type(side: int) -> np.dtype[np.void]:
    """Return the layout of one stored crop."""
    fields: list[Any] = [
        ("pixels", "u1", (side, side, 3)),
        ("kind", "i1"),
        # From the name of the picture: crops of one picture are held out together.
        ("group", "<u4"),
        ("offsets", "<f4", (4,)),
        # How far the box is from the middle of the crop, which mirroring has to know.
        ("lopsided", "<f4"),
        ("landmarks", "<f4", (len(LANDMARK_NAMES), 2)),
    ]
    return np.dtype(fields)


def _described(
    found: Candidates, windows: Windows, one: Annotated, geometry: Geometry, net: Net
) -> Records:
    """Return records of crops with all but their pixels."""
    records: Records = np.zeros(len(found.boxes), record_type(SIDES[net]))
    records["kind"] = found.kinds
    records["group"] = group_of(one.name)
    records["landmarks"] = np.nan
    about = np.flatnonzero(found.kinds != Kind.NEGATIVE)
    boxes, faces = found.boxes[about], found.faces[about]
    targets = geometry.without_end(one.faces.boxes)[faces]
    place = list(SIDES).index(net)
    records["offsets"][about] = geometry.offsets(boxes, targets, place)
    records["lopsided"][about] = geometry.lopsidedness(boxes, windows[about], place)
    if one.faces.landmarks is not None and net == "onet":
        points = geometry.fractions(boxes, one.faces.landmarks[faces])
        # Parts of a face may not show them.
        points[found.kinds[about] == Kind.PART] = np.nan
        records["landmarks"][about] = points
    return records


def group_of(name: str) -> int:
    """Return a number below 2**32 that depends on the name of a picture alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def _learnable(one: Annotated, cuts: Cuts, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Faces that are large enough, valid, and within the picture."""
    height, width = size
    boxes = one.faces.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    large = (sides.max(axis=1, initial=0) >= cuts.smallest_px) & (sides > 0).all(1)
    learnable: npt.NDArray[np.bool_] = inside & large & (one.attribute("invalid") == 0)
    return learnable


def _drawn(
    rng: np.random.Generator,
    known: Floats,
    learnable: npt.NDArray[np.bool_],
    size: tuple[int, int],
    cuts: Cuts,
) -> tuple[Windows, Candidates]:
    """Draw windows for the first net: anywhere, near faces, and around faces."""
    parts = [(_background(rng, known, size, cuts), Kind.NEGATIVE, 0)]
    for i in np.flatnonzero(learnable).tolist():
        near = _near(rng, known[i], size, cuts.near)
        free = _best_overlap(near.astype(np.float32), known, 0)[0] < cuts.drawn_overlap
        around = _jittered(rng, known[i], size, cuts.tries)
        shared = overlaps(around.astype(np.float32), known[i : i + 1])[:, 0]
        whole = shared >= cuts.positive_overlap
        parts += [
            (near[free], Kind.NEGATIVE, i),
            (around[whole], Kind.POSITIVE, i),
            (around[~whole & (shared >= cuts.part_overlap)], Kind.PART, i),
        ]
    return _gathered(parts)


def _mined(
    boxes: Floats,
    known: Floats,
    learnable: npt.NDArray[np.bool_],
    cuts: Cuts,
    geometry: Geometry,
) -> Candidates:
    """Label what the nets before have let through."""
    pixel = float(geometry.spec.inclusive)
    shared, nearest = _best_overlap(boxes, geometry.without_end(known), pixel)
    about = learnable[nearest] if len(known) else np.zeros(len(boxes), dtype=np.bool_)
    kinds = np.full(len(boxes), -1, dtype=np.int8)
    kinds[shared < cuts.mined_overlap] = Kind.NEGATIVE
    kinds[about & (shared >= cuts.part_overlap)] = Kind.PART
    kinds[about & (shared >= cuts.positive_overlap)] = Kind.POSITIVE
    kept = kinds >= 0
    return Candidates(boxes[kept], kinds[kept], nearest[kept])


def _around_landmarks(
    rng: np.random.Generator,
    faces: Faces,
    learnable: npt.NDArray[np.bool_],
    size: tuple[int, int],
    cuts: Cuts,
) -> Candidates:
    """Draw windows around faces whose landmarks are all annotated."""
    parts: list[tuple[Windows, Kind, int]] = [(np.zeros((0, 4), np.int64), Kind.LANDMARK, 0)]
    if faces.landmarks is not None:
        known = np.isfinite(faces.landmarks).all(axis=(1, 2))
        for i in np.flatnonzero(learnable & known).tolist():
            around = _jittered(rng, faces.boxes[i], size, cuts.landmark_tries)
            shared = overlaps(around.astype(np.float32), faces.boxes[i : i + 1])[:, 0]
            parts.append((around[shared > cuts.positive_overlap], Kind.LANDMARK, i))
    return _gathered(parts)[1]


def _gathered(parts: Sequence[tuple[Windows, Kind, int]]) -> tuple[Windows, Candidates]:
    windows = np.concatenate([part for part, _, _ in parts])
    counts = [len(part) for part, _, _ in parts]
    kinds = np.repeat(np.array([kind for _, kind, _ in parts], np.int8), counts)
    faces = np.repeat(np.array([face for _, _, face in parts], np.intp), counts)
    return windows, Candidates(windows.astype(np.float32), kinds, faces)


def _background(
    rng: np.random.Generator, known: Floats, size: tuple[int, int], cuts: Cuts
) -> Windows:
    """Squares anywhere on the picture that no face fills; fewer where faces leave no room."""
    height, width = size
    found = np.zeros((0, 4), dtype=np.int64)
    if min(size) < CELL_PX:
        return found
    high = max(min(size) // 2, CELL_PX + 1)
    for _ in range(_ROUNDS):
        if len(found) >= cuts.negatives:
            break
        side = rng.integers(CELL_PX, high, cuts.negatives)
        left, top = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
        squares = np.stack([left, top, left + side, top + side], axis=1)
        shared, _ = _best_overlap(squares.astype(np.float32), known, 0)
        found = np.concatenate([found, squares[shared < cuts.drawn_overlap]])
    return found[: cuts.negatives]


def _near(rng: np.random.Generator, face: Floats, size: tuple[int, int], count: int) -> Windows:
    """Squares that overlap a face, or touch it, and lie within the picture."""
    x, y = (int(value) for value in face[:2])
    w, h = (max(1, int(value)) for value in face[2:] - face[:2])
    side = rng.integers(CELL_PX, max(min(size) // 2, CELL_PX + 1), count)
    left = x + rng.integers(np.maximum(-side, -x), w)
    top = y + rng.integers(np.maximum(-side, -y), h)
    return _within(np.stack([left, top, left + side, top + side], axis=1), size)


def _jittered(rng: np.random.Generator, face: Floats, size: tuple[int, int], count: int) -> Windows:
    """Squares about as large as a face, about where it is, within the picture."""
    sides = (face[2:] - face[:2]).astype(np.float64)
    low = max(int(0.8 * sides.min()), 1)
    side = rng.integers(low, max(math.ceil(1.25 * sides.max()), low + 1), count)
    reach = (0.2 * sides).astype(np.int64)
    shift = rng.integers(-reach, np.maximum(reach, 1), (count, 2))
    corner = face[:2] + sides / 2 + shift - side[:, None] / 2
    corner = np.maximum(corner, 0).astype(np.int64)
    return _within(np.concatenate([corner, corner + side[:, None]], axis=1), size)


def _within(windows: Windows, size: tuple[int, int]) -> Windows:
    height, width = size
    inside = (windows[:, :2] >= 0).all(1) & (windows[:, 2] <= width) & (windows[:, 3] <= height)
    return windows[inside]


def _best_overlap(boxes: Floats, known: Floats, pixel: float) -> tuple[Floats, Indices]:
    """Overlap with, and number of, the face that each box overlaps most."""
    shared = np.zeros(len(boxes), dtype=np.float32)
    nearest = np.zeros(len(boxes), dtype=np.intp)
    if not len(known):
        return shared, nearest
    # Piece by piece: 20,000 boxes and 2,000 faces would be 40 million pairs at once.
    for start in range(0, len(boxes), 1024):
        part = slice(start, start + 1024)
        ratio = overlaps(boxes[part], known, pixel=pixel)
        nearest[part], shared[part] = ratio.argmax(axis=1), ratio.max(axis=1)
    return shared, nearest
