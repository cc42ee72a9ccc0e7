"""``slimface detect``: faces in pictures, folders, videos and from a webcam."""

import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import console, diary, print_json, print_table, track
from slimface.errors import DataError, SlimfaceError, UsageError

if TYPE_CHECKING:
    from slimface.core.faces import Faces
    from slimface.data.formats import Detected
    from slimface.deploy.media import Frame, Source
    from slimface.deploy.pipeline import Pipeline, Settings, Timing
    from slimface.deploy.video import VideoFile

FORMATS = ("json", "coco", "wider", "labels")
MAX_ROWS = 40
"""Pictures that get a line of their own in the table."""


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(help="Pictures, folders, patterns, videos, or the number of a webcam."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of the zoo, checkpoint, or exported file.")
    ] = "eresfd",
    save: Annotated[
        Path | None, typer.Option(help="Write pictures and videos with the faces drawn here.")
    ] = None,
    align: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            min=16,
            help="--save upright crops of the faces with this side instead (112: ArcFace).",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the faces to this file (wider: folder).")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", help=f"Format of --out: {', '.join(FORMATS)} (RetinaFace's); else json."
        ),
    ] = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score. Default: the model's.")
    ] = None,
    nms: Annotated[
        float | None, typer.Option(help="Largest overlap of two faces. Default: the model's.")
    ] = None,
    cap: Annotated[int | None, typer.Option(min=1, help="Most faces a picture.")] = None,
    longest: Annotated[
        int | None, typer.Option(min=1, help="Resize so that the longer side has these pixels.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Resize both sides by this factor.")] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop each video or webcam after so many frames.")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger pictures before they are decoded.")
    ] = 100_000_000,
    min_face: Annotated[
        float | None,
        typer.Option(min=1, help="Cascades: smallest face looked for, in pixels.  [default: its]"),
    ] = None,
    proposals: Annotated[
        int | None,
        typer.Option(min=1, help="Cascades: most boxes at each step; bounds memory and time."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the runtime.")] = None,
    device: Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, mps.")] = "cpu",
) -> None:
    """Find faces in pictures, folders, videos or from a webcam."""
    from slimface.cli.opening import open_model
    from slimface.deploy.media import expand, frames
    from slimface.deploy.pipeline import Settings

    if format_ not in (None, *FORMATS):
        raise UsageError(f"--format {format_} is not one of {', '.join(FORMATS)}.\nChoose one.")
    if format_ is not None and out is None:
        raise UsageError(f"--format {format_} of what?\nSay where to write it with --out.")
    if align is not None and save is None:
        raise UsageError("--align makes crops of the faces.\nSay where to write them with --save.")
    settings = Settings(
        scale=scale, longest_px=longest, score_floor=score, nms_overlap=nms, cap=cap
    )
    things = expand(sources)
    _protect_originals(things, save)
    if format_ == "wider":
        _check_stems(things)
    for folder in (save, out if format_ == "wider" else out and out.parent):
        _make_folder(folder)
    pipeline = open_model(
        model, threads=threads, device=device, min_face=min_face, proposals=proposals
    )
    if align is not None and not pipeline.spec.landmarks:
        raise UsageError(
            f"{pipeline.name} finds boxes without landmarks, by which faces are aligned.\n"
            "Choose one that finds landmarks, such as --model retinaface-mobilenet025."
        )
    session = Session(pipeline, settings, save, align)
    pictures = frames(
        things, max_frames=max_frames, max_pixels=max_pixels, on_error=session.note_failure
    )
    total = len(things) if all(thing.is_picture for thing in things) else None
    try:
        with closing(session):
            for frame in track(pictures, "detecting", total=total):
                session.look_at(frame)
    except (KeyboardInterrupt, SlimfaceError):
        diary.print(f"{len(session.found)} pictures were done; what was found in them is kept.")
        raise
    finally:
        # After Ctrl-C as well: what was found so far is written and shown.
        try:
            session.write(out, format_)
        finally:
            session.show(as_json=json)
    session.raise_failures()


def _protect_originals(things: "list[Source]", save: Path | None) -> None:
    for thing in things:
        target = save / thing.name if save is not None else None
        if target and thing.path and target.exists() and target.samefile(thing.path):
            raise UsageError(
                f"--save {save} would overwrite {thing.path} with the drawn picture.\n"
                "Name another folder."
            )


def _make_folder(folder: Path | None) -> None:
    """Find out before the work, not after it, that there is no place for what comes of it."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"nothing can be written to {folder}: {error.strerror}.\nName another place."
        ) from None


def _check_stems(things: "list[Source]") -> None:
    """Refuse pictures that would share one text file."""
    seen: dict[Path, str] = {}
    for thing in things:
        stem = Path(thing.name).with_suffix("")
        if stem in seen:
            raise UsageError(
                f"{seen[stem]} and {thing.name} would both be written to {stem}.txt.\n"
                "Choose --format json, or detect them one after the other."
            )
        seen[stem] = thing.name


@dataclass
class Session:
    """What one command has found so far."""

    pipeline: "Pipeline"
    settings: "Settings"
    save: Path | None
    align: int | None = None
    found: "list[Detected]" = field(default_factory=list)
    timings: "list[Timing]" = field(default_factory=list)
    failures: list[tuple[str, SlimfaceError]] = field(default_factory=list)
    _video: "VideoFile | None" = None

    def note_failure(self, name: str, error: SlimfaceError) -> None:
        """Remember what could not be read; the rest goes on."""
        self.failures.append((name, error))

    def look_at(self, frame: "Frame") -> None:
        """Find the faces of a frame, and draw them if asked to."""
        from slimface.data.formats import Detected

        faces, timing = self.pipeline.detect_timed(frame.picture, self.settings)
        if self.align is not None:
            self._keep_crops(frame, faces)
        elif self.save is not None:
            from slimface.deploy.draw import draw

            self._keep(frame, draw(frame.picture, faces))
        height, width = frame.picture.shape[:2]
        self.found.append(Detected(frame.name, faces, height, width))
        self.timings.append(replace(timing, read_ms=frame.read_ms))

    def _keep_crops(self, frame: "Frame", faces: "Faces") -> None:
        from slimface.deploy.align import aligned_crops
        from slimface.deploy.draw import write_picture

        assert self.save is not None and self.align is not None
        # The whole name: a.jpg and a.png would share their crops otherwise.
        place = self.save / frame.name
        for number, crop in aligned_crops(frame.picture, faces, self.align):
            write_picture(place.with_name(f"{place.name}-{number:03d}.png"), crop)

    def _keep(self, frame: "Frame", drawn: Any) -> None:
        from slimface.deploy.draw import write_picture
        from slimface.deploy.media import PICTURE_SUFFIXES
        from slimface.deploy.video import VideoFile

        assert self.save is not None
        path = self.save / (frame.video.name if frame.video else frame.name)
        if frame.video is None:
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                path = path.with_name(f"{path.name}.jpg")
            write_picture(path, drawn)
            return
        if self._video is None or self._video.path != path.with_suffix(".mp4"):
            self.close()
            height, width = drawn.shape[:2]
            self._video = VideoFile(
                path,
                height=height,
                width=width,
                frames_per_second=frame.video.frames_per_second,
            )
        self._video.write(drawn)

    def close(self) -> None:
        """Finish the video that is being written, if any."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def write(self, out: Path | None, format_: str | None) -> None:
        """Write what was found to a file, or for ``wider`` a folder."""
        from slimface.data.formats import write_coco, write_json

        if out is None:
            return
        if format_ == "wider":
            from slimface.evaluate.predictions import write_predictions

            names = [picture.name for picture in self.found]
            write_predictions(out, names, [picture.faces for picture in self.found])
        elif format_ == "coco":
            write_coco(out, self.found)
        elif format_ == "labels":
            from slimface.data.landmarks import write_labels
            from slimface.data.pictures import Annotated as AnnotatedPicture
            from slimface.data.pictures import PictureSet

            pictures = (AnnotatedPicture(p.name, Path(p.name), p.faces) for p in self.found)
            write_labels(PictureSet("detected", tuple(pictures)), out)
        else:
            write_json(out, self.found, **self._about())

    def show(self, *, as_json: bool) -> None:
        """Print what was found."""
        if as_json:
            from slimface.data.formats import as_json as rows

            pictures = [
                {**rows(picture), "ms": timing.as_row()}
                for picture, timing in zip(self.found, self.timings, strict=True)
            ]
            failed = [{"name": name, "error": str(error)} for name, error in self.failures]
            print_json({**self._about(), "pictures": pictures, "failed": failed})
        elif self.found:
            columns = ("picture", "faces", "read", "resize", "network", "decode", "total")
            medians = "; in the last line, medians" if len(self.found) > 1 else ""
            title = f"Faces found by {self.pipeline.name} ({self.pipeline.runtime})"
            print_table(title, columns, self._rows(), caption=f"times in milliseconds{medians}")

    def raise_failures(self) -> None:
        """Say at the end what could not be read."""
        if not self.failures:
            return
        lines = [str(error).partition("\n")[0] for _, error in self.failures]
        count = len(lines) + len(self.found)
        raise DataError(
            f"{len(lines)} of {count} pictures could not be read (or were read in part); "
            "the others are done:\n  " + "\n  ".join(lines) + "\nMend or leave out those named."
        )

    def _about(self) -> dict[str, Any]:
        spec = self.pipeline.spec.postprocess
        asked = self.settings
        return {
            "model": self.pipeline.name,
            "fingerprint": self.pipeline.fingerprint(),
            "runtime": self.pipeline.runtime,
            "score_floor": spec.score_floor if asked.score_floor is None else asked.score_floor,
            "nms_overlap": spec.nms_overlap if asked.nms_overlap is None else asked.nms_overlap,
            "scale": asked.scale,
            "longest_px": asked.longest_px,
        }

    def _rows(self) -> Iterator[list[str]]:
        # Beside the name, the columns need 55 characters.
        room = max(20, console.width - 55)
        for picture, timing in list(zip(self.found, self.timings, strict=True))[:MAX_ROWS]:
            name = picture.name if len(picture.name) <= room else f"…{picture.name[1 - room :]}"
            times = [f"{value:.1f}" for value in timing.as_row().values()]
            yield [name, str(len(picture.faces)), *times]
        if len(self.found) > MAX_ROWS:
            yield [f"… {len(self.found) - MAX_ROWS} more", *[""] * 6]
        if len(self.found) > 1:
            faces = sum(len(picture.faces) for picture in self.found)
            columns = zip(*(t.as_row().values() for t in self.timings), strict=True)
            medians = [f"{statistics.median(column):.1f}" for column in columns]
            yield [f"{len(self.found)} pictures", str(faces), *medians]
