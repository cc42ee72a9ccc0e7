"""Cascade: faces by three small nets in a row, each looking at what the one before has left.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016, arXiv:1604.02878. The rules in which published systems differ are in the spec.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slimface.core.boxes import Indices, areas, best_first, suppress
from slimface.core.faces import Faces, Floats
from slimface.core.spec import CELL_PX, CascadeSpec
from slimface.deploy.crops import Windowed, Windows
from slimface.deploy.media import Picture, read_picture
from slimface.deploy.pipeline import (
    DecodedFaces,
    Network,
    Pipeline,
    RawFaces,
    Settings,
    Source,
    Timing,
    logit,
    sigmoid,
)
from slimface.deploy.preprocess import check_picture, resized
from slimface.errors import CheckpointError, UsageError

REFINE_PX = 24
OUTPUT_PX = 48
CELL_STRIDE = 2
BAND_PIXELS = 2**16
"""The first net sees its pyramid in bands of about so many pixels: their maps stay in the cache of
the processor, and memory does not grow with the picture."""

BATCH = 256
"""Crops a call of the second and third net."""

AS_THE_SPEC = Settings()


@dataclass
class Networks:
    """The three nets; each may run in another runtime."""

    pnet: Network
    rnet: Network
    onet: Network

    def __call__(self, images: Floats) -> RawFaces | DecodedFaces:
        """Refuse: what one net finds decides what the next one sees.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "a cascade of three nets has no predictions in one pass.\nCall detect, or one net."
        )


@dataclass(slots=True)
class _Found:
    """Boxes of one picture on their way through the cascade, best first."""

    boxes: Floats

    scores: Floats
    """They decide what is best, not logits: many are 1 in 32 bits, and of those the first goes
    before the others, as in published systems."""

    offsets: Floats
    landmarks: Floats | None = None

    def select(self, index: Indices) -> "_Found":
        points = None if self.landmarks is None else self.landmarks[index]
        return _Found(self.boxes[index], self.scores[index], self.offsets[index], points)


@dataclass(slots=True)
class _Clock:
    """Seconds by purpose."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, purpose: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[purpose] = self.spent.get(purpose, 0.0) + time.perf_counter() - start

    def ms(self, purpose: str) -> float:
        return 1e3 * self.spent.get(purpose, 0.0)


class Cascade(Pipeline):
    """Three networks with the rules of their spec: a Predictor.

    Crops of all boxes, and of all pictures of a batch, go through a net together. Memory is
    bounded whatever is on the picture: by the spec's ``proposals``, and by ``batch``.
    """

    spec: CascadeSpec

    def __init__(
        self,
        spec: CascadeSpec,
        networks: Networks,
        *,
        name: str = "",
        runtime: str = "python",
        identity: Callable[[], str] | None = None,
        batch: int = BATCH,
    ) -> None:
        """Join a spec and its networks; the other arguments are those of ``Pipeline``.

        Raises:
            UsageError: ``batch`` is not positive.
        """
        if batch < 1:
            raise UsageError(
                f"batch is {batch}; a net needs at least one crop a call.\nCorrect it."
            )
        super().__init__(spec, networks, name=name, runtime=runtime, identity=identity)
        self.networks = networks
        self.batch = batch

    def detect_timed(
        self,
        picture: Source,
        settings: Settings = AS_THE_SPEC,
    ) -> tuple[Faces, Timing]:
        """As ``detect``, and where the milliseconds went; crops count as resizing."""
        clock = _Clock()
        with clock.running("read"):
            pixels = read_picture(picture) if isinstance(picture, str | Path) else picture
        [faces] = self._detect([pixels], settings, clock)
        timing = Timing(*(clock.ms(part) for part in ("read", "resize", "network", "decode")))
        return faces, timing

    def detect_batch(
        self,
        pictures: Sequence[Picture],
        settings: Settings = AS_THE_SPEC,
    ) -> list[Faces]:
        """Return the faces of each picture; they may have any sizes."""
        return self._detect(pictures, settings, _Clock())

    def prepare(self, pictures: Sequence[Picture], settings: Settings = AS_THE_SPEC) -> Floats:
        """Refuse: what a cascade feeds its networks depends on their answers.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{self.name} is a cascade: its later nets see crops that the earlier ones choose, so "
            "there is no one input to prepare.\nCall detect or detect_batch."
        )

    def _detect(
        self, pictures: Sequence[Picture], settings: Settings, clock: _Clock
    ) -> list[Faces]:
        spec = self.spec
        views = []
        for picture in pictures:
            check_picture(picture)
            with clock.running("resize"):
                sized = resized(picture, *settings.network_size(*picture.shape[:2]))
                views.append(Windowed(sized, spec.resize))
        found = [self._proposed(view, clock) for view in views]
        with clock.running("decode"):
            found = [self._calibrated(one, 0, square=True) for one in found]
        found = self._judged(views, found, self.networks.rnet, REFINE_PX, spec.refine_floor, clock)
        with clock.running("decode"):
            found = [self._suppressed(one, spec.refine_overlap) for one in found]
            found = [self._calibrated(one, 1, square=True) for one in found]
        asked = settings.score_floor
        floor = spec.postprocess.score_floor if asked is None else asked
        found = self._judged(views, found, self.networks.onet, OUTPUT_PX, floor, clock)
        with clock.running("decode"):
            return [
                self._faces(one, picture, settings)
                for one, picture in zip(found, pictures, strict=True)
            ]

    def _proposed(self, view: Windowed, clock: _Clock) -> _Found:
        """Run the first net over the pyramid."""
        spec = self.spec
        found = [_nothing()]
        for scale, rows, columns in spec.levels(view.height, view.width):
            bands = [
                self._scan(view, (scale, rows, columns), first, last, clock)
                for first, last in _bands(spec.cells_along(rows), columns)
            ]
            with clock.running("decode"):
                level = self._best(_joined(bands))
                found.append(self._suppressed(level, spec.level_overlap))
        with clock.running("decode"):
            return self._suppressed(self._best(_joined(found)), spec.proposal_overlap)

    def _scan(
        self, view: Windowed, level: tuple[float, int, int], first: int, last: int, clock: _Clock
    ) -> _Found:
        """Run the first net over the rows ``first`` to ``last`` of the cells of one level."""
        scale, rows, columns = level
        across = self.spec.cells_along(columns)
        with clock.running("resize"):
            # The last row of cells takes what is left: pools may round up.
            end = CELL_STRIDE * (last - 1) + CELL_PX
            end = rows if last == self.spec.cells_along(rows) else end
            band = self._normal(view.rows(rows, columns, CELL_STRIDE * first, end)[None])
        with clock.running("network"):
            raw = self._answer(self.networks.pnet, band, (1, (last - first) * across), "pnet")
        with clock.running("decode"):
            logits = raw.logits[0]
            survivors = np.flatnonzero(logits >= logit(self.spec.proposal_floor))
            y, x = np.divmod(survivors, across)
            boxes = self._cells(x, y + first, scale)
            return _Found(boxes, sigmoid(logits[survivors]), raw.offsets[0, survivors])

    def _cells(self, x: Indices, y: Indices, scale: float) -> Floats:
        """Boxes of cells in pixels of the picture."""
        corner = CELL_STRIDE * np.stack([x, y], axis=1).astype(np.float32)
        if self.spec.cells == "floor":
            both = np.concatenate([corner + 1, corner + CELL_PX], axis=1)
            return np.floor(both / np.float32(scale))
        both = np.concatenate([corner, corner + CELL_PX], axis=1)
        return np.rint(both / np.float32(scale))

    def _judged(
        self,
        views: Sequence[Windowed],
        found: Sequence[_Found],
        network: Network,
        side: int,
        floor: float,
        clock: _Clock,
    ) -> list[_Found]:
        """Show the crops of all boxes to a net; keep those that it scores high enough."""
        parts: list[list[_Found]] = [[_nothing()] for _ in views]
        for piece in _batches([len(one.boxes) for one in found], self.batch):
            with clock.running("resize"):
                crops = [
                    views[i].crops(self._windows(found[i].boxes[part], views[i]), side)
                    for i, part in piece
                ]
                images = self._normal(np.concatenate(crops))
            with clock.running("network"):
                raw = self._answer(network, images, (len(images), 1), f"{side} px net")
            with clock.running("decode"):
                start = 0
                for i, part in piece:
                    boxes = found[i].boxes[part]
                    here = slice(start, start + len(boxes))
                    start += len(boxes)
                    points = None if raw.landmarks is None else raw.landmarks[here, 0]
                    scores = sigmoid(raw.logits[here, 0])
                    one = _Found(boxes, scores, raw.offsets[here, 0], points)
                    parts[i].append(one.select(np.flatnonzero(scores >= floor)))
        with clock.running("decode"):
            return [self._best(_joined(part)) for part in parts]

    def _windows(self, boxes: Floats, view: Windowed) -> Windows:
        """Which pixels a net gets to see of each box; at least one."""
        if self.spec.crop == "cut":
            corners = np.trunc(boxes).astype(np.int64)
            limits = np.array([view.width, view.height] * 2)
            corners = np.clip(corners, 1, limits)
            corners[:, :2] -= 1
        else:
            corners = np.rint(boxes).astype(np.int64)
            corners[:, 2:] += 1
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        return corners

    def _calibrated(self, found: _Found, net: int, *, square: bool) -> _Found:
        """Move boxes by their offsets."""
        boxes = found.boxes
        sides = boxes[:, 2:] - boxes[:, :2] + np.float32(self.spec.offset_pixels[net])
        boxes = boxes + found.offsets * np.tile(sides, 2)
        if square:
            boxes = self._square(boxes)
        return _Found(boxes, found.scores, found.offsets, found.landmarks)

    def _square(self, boxes: Floats) -> Floats:
        """The square of the longer side around the same centre."""
        pixel = np.float32(self.spec.inclusive)
        sides = boxes[:, 2:] - boxes[:, :2] + pixel
        longest = sides.max(axis=1, keepdims=True)
        corner = boxes[:, :2] + (sides - longest) * np.float32(0.5)
        squares = np.concatenate([corner, corner + longest - pixel], axis=1)
        return np.rint(squares) if self.spec.crop == "pad" else squares

    def _best(self, found: _Found) -> _Found:
        return found.select(best_first(found.scores, limit=self.spec.proposals))

    def _suppressed(self, found: _Found, overlap: float) -> _Found:
        pixel = float(self.spec.inclusive)
        boxes, scores = found.boxes, found.scores
        return found.select(suppress(boxes, scores, overlap=overlap, pixel=pixel, is_sorted=True))

    def _faces(self, found: _Found, picture: Picture, settings: Settings) -> Faces:
        """Turn what the third net has left into faces of the picture."""
        plan = self.spec.postprocess
        found = found.select(np.arange(min(len(found.boxes), settings.pre_nms or plan.pre_nms)))
        points = self._landmarks(found)
        found = self._calibrated(found, 2, square=False)
        found.landmarks = points
        found = found.select(suppress_by_smaller(found.boxes, overlap=plan.nms_overlap))
        if settings.nms_overlap is not None:
            found = self._suppressed(found, settings.nms_overlap)
        found = found.select(np.arange(min(len(found.boxes), settings.cap or plan.cap)))
        boxes: Floats = self._square(found.boxes) if self.spec.square_last else found.boxes
        if self.spec.inclusive:
            boxes = boxes + np.array([0, 0, 1, 1], dtype=np.float32)
        height, width = picture.shape[:2]
        rows, columns = settings.network_size(height, width)
        ratio: Floats = np.array([columns / width, rows / height], dtype=np.float32)
        points = None if found.landmarks is None else found.landmarks / ratio
        return Faces(boxes / np.concatenate([ratio] * 2), found.scores, points)

    def _landmarks(self, found: _Found) -> Floats | None:
        """Landmarks are fractions of the box the net has seen, not of the calibrated one."""
        if found.landmarks is None:
            return None
        corner = found.boxes[:, None, :2]
        sides = found.boxes[:, None, 2:] - corner + np.float32(self.spec.offset_pixels[2])
        first = np.float32(self.spec.crop == "cut")
        points: Floats = corner + found.landmarks * sides - first
        return points

    def _normal(self, images: Floats) -> Floats:
        """Normalise in place."""
        rule = self.spec.preprocess
        images -= np.array(rule.mean, dtype=np.float32)[:, None, None]
        images *= np.float32(rule.scale)
        return images if rule.colour == "rgb" else images[:, ::-1]

    def _answer(
        self, network: Network, images: Floats, shape: tuple[int, int], which: str
    ) -> RawFaces:
        raw = network(images)
        if isinstance(raw, DecodedFaces) or raw.logits.shape != shape:
            got = "decoded boxes" if isinstance(raw, DecodedFaces) else f"logits {raw.logits.shape}"
            raise CheckpointError(
                f"{self.name}: the {which} answers {got} to {images.shape}; {shape} logits are "
                "needed.\nThe nets and the spec do not belong together; save them again."
            )
        if not (np.isfinite(raw.logits).all() and np.isfinite(raw.offsets).all()):
            raise CheckpointError(
                f"{self.name}: the {which} answers with values that are infinite or no numbers.\n"
                "Its weights are damaged or its training diverged; use an earlier checkpoint."
            )
        return raw


def suppress_by_smaller(boxes: Floats, *, overlap: float) -> Indices:
    """Greedy suppression of sorted boxes by the share of the smaller one, last pixels included.

    A small box within a large one goes, which intersection over union would let stay.
    """
    area = areas(boxes, pixel=1)
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        sides = np.maximum(high - low + 1, 0)
        smaller = np.maximum(np.minimum(area[best], area[left]), np.finfo(np.float32).tiny)
        left = left[sides[:, 0] * sides[:, 1] / smaller <= overlap]
    return np.asarray(kept, dtype=np.intp)


def _bands(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Cut the rows of a level's cells into bands."""
    step = max(1, BAND_PIXELS // (CELL_STRIDE * columns))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _batches(counts: Sequence[int], size: int) -> Iterator[list[tuple[int, slice]]]:
    """Cut the boxes of all pictures into pieces of ``size``: picture and which of its boxes."""
    piece: list[tuple[int, slice]] = []
    room = size
    for i, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(count, start + room)
            piece.append((i, slice(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                yield piece
                piece, room = [], size
    if piece:
        yield piece


def _nothing() -> _Found:
    none = np.zeros((0, 4), dtype=np.float32)
    return _Found(none, none[:, 0], none)


def _joined(parts: Sequence[_Found]) -> _Found:
    parts = [part for part in parts if len(part.boxes)] or [_nothing()]
    points = [part.landmarks for part in parts if part.landmarks is not None]
    return _Found(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate(points) if points else None,
    )
