"""Cascade: faces by three small nets in a row, each looking at what the one before has left.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016, arXiv:1604.02878. The rules in which published systems differ are in the spec.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from slimface.core.boxes import Indices, areas, best_first, suppress
from slimface.core.faces import Faces, Floats
from slimface.core.spec import CELL_PX, CascadeSpec
from slimface.deploy.cascade_geometry import CELL_STRIDE, Geometry
from slimface.deploy.crops import Windowed
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
from slimface.deploy.pixels import linear
from slimface.deploy.preprocess import check_picture
from slimface.errors import CheckpointError, UsageError

REFINE_PX = 24
OUTPUT_PX = 48
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
        self.geometry = Geometry(spec)
        self.batch = batch

    def looking_for(
        self, *, min_face_px: float | None = None, proposals: int | None = None
    ) -> "Cascade":
        """Return this cascade with other limits; None leaves one as it is.

        Args:
            min_face_px: Smallest face looked for.
            proposals: At most this many boxes go on at each step.

        Raises:
            UsageError: A limit is not positive.
        """
        asked = {"min_face_px": min_face_px, "proposals": proposals}
        changes = {name: value for name, value in asked.items() if value is not None}
        wrong = [f"{name} is {value}" for name, value in changes.items() if not value > 0]
        if wrong:
            raise UsageError(f"{wrong[0]}; it must be above 0.\nCorrect it.")
        spec = self.spec.model_copy(update=changes)
        words = "".join(f", {name} {value:g}" for name, value in changes.items())
        before = self.fingerprint

        def identity() -> str:
            return hashlib.sha256(f"{before()} {spec.fingerprint()}".encode()).hexdigest()

        return Cascade(
            spec,
            self.networks,
            name=f"{self.name}{words}",
            runtime=self.runtime,
            identity=identity if changes else self._identity,
            batch=self.batch,
        )

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

    def seen_by(self, net: Literal["rnet", "onet"], view: Windowed) -> Floats:
        """Return the boxes on a picture that a net gets to see, best first: what it learns from.

        Returns:
            Squares as the cascade counts pixels, shape ``(n, 4)``; see ``crops`` and ``geometry``.
        """
        clock = _Clock()
        found = self._proposed(view, clock)
        if net == "onet":
            [found] = self._refined([view], [found], clock)
        return found.boxes

    def crops(self, view: Windowed, boxes: Floats, side: int) -> Floats:
        """Return what a net sees of boxes, in 0..255, shape ``(n, 3, side, side)``."""
        return view.crops(self.geometry.windows(boxes, view.height, view.width), side)

    def _detect(
        self, pictures: Sequence[Picture], settings: Settings, clock: _Clock
    ) -> list[Faces]:
        views = []
        for picture in pictures:
            check_picture(picture)
            with clock.running("resize"):
                sized = linear(picture, *settings.network_size(*picture.shape[:2]))
                views.append(Windowed(sized, self.spec.resize))
        found = self._refined(views, [self._proposed(view, clock) for view in views], clock)
        asked = settings.score_floor
        floor = self.spec.postprocess.score_floor if asked is None else asked
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
            kept = self._suppressed(self._best(_joined(found)), spec.proposal_overlap)
            return self._squared(kept, 0)

    def _refined(
        self, views: Sequence[Windowed], found: Sequence[_Found], clock: _Clock
    ) -> list[_Found]:
        """Run the second net on what the first has proposed."""
        spec = self.spec
        kept = self._judged(views, found, self.networks.rnet, REFINE_PX, spec.refine_floor, clock)
        with clock.running("decode"):
            return [self._squared(self._suppressed(one, spec.refine_overlap), 1) for one in kept]

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
            boxes = self.geometry.cells(x, y + first, scale)
            return _Found(boxes, sigmoid(logits[survivors]), raw.offsets[0, survivors])

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
                crops = [self.crops(views[i], found[i].boxes[part], side) for i, part in piece]
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

    def _squared(self, found: _Found, net: int) -> _Found:
        """Move boxes by their offsets, and make them what the next net sees."""
        boxes = self.geometry.moved(found.boxes, found.offsets, net)
        return _Found(self.geometry.square(boxes), found.scores, found.offsets)

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
        points = found.landmarks
        if points is not None:
            # Fractions of the box that the net has seen, not of the one it moves it to.
            points = self.geometry.landmarks(found.boxes, points)
        boxes = self.geometry.moved(found.boxes, found.offsets, 2)
        found = _Found(boxes, found.scores, found.offsets, points)
        found = found.select(suppress_by_smaller(found.boxes, overlap=plan.nms_overlap))
        if settings.nms_overlap is not None:
            found = self._suppressed(found, settings.nms_overlap)
        found = found.select(np.arange(min(len(found.boxes), settings.cap or plan.cap)))
        boxes = self.geometry.square(found.boxes) if self.spec.square_last else found.boxes
        boxes = self.geometry.with_end(boxes)
        height, width = picture.shape[:2]
        rows, columns = settings.network_size(height, width)
        ratio: Floats = np.array([columns / width, rows / height], dtype=np.float32)
        points = None if found.landmarks is None else found.landmarks / ratio
        return Faces(boxes / np.concatenate([ratio] * 2), found.scores, points)

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
        if not isinstance(raw, RawFaces) or raw.logits.shape != shape:
            got = f"logits {raw.logits.shape}" if isinstance(raw, RawFaces) else "decoded boxes"
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
