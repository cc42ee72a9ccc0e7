"""``slimface evaluate``: average precision by the official protocol, stamped."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.classify import score_classes
from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.run import DataOption, JsonOption, source_of
from slimface.cli.size import read_size
from slimface.errors import DataError, UsageError
from slimface.files import write_text

if TYPE_CHECKING:
    from slimface.core.record import Evaluation, InputRule, LandmarkError, SubsetResult
    from slimface.data.pictures import PictureSet
    from slimface.evaluate.truth import Truth

REFERENCE_PIXELS = 1700 * 1200


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="Name of the zoo, checkpoint or exported file; none: --predictions."),
    ] = None,
    data: DataOption = "drawn",
    split: Annotated[
        str,
        typer.Option(help="val or train; test, too, for classes.", show_default="val; test"),
    ] = "",
    truth: Annotated[
        str,
        typer.Option(
            help="wider: easy / medium / hard of the official files; annotations: one figure; "
            "auto: wider where the official files are."
        ),
    ] = "auto",
    input_: Annotated[
        str | None,
        typer.Option(
            "--input", help="original, longest:N, fit:WxH or multiscale.", show_default="original"
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            min=0, help="Scale larger pictures down to this many pixels; 0: never (original only)."
        ),
    ] = REFERENCE_PIXELS,
    keep_lone: Annotated[
        bool, typer.Option("--keep-lone", help="multiscale: keep boxes that no second one joins.")
    ] = False,
    score_floor: Annotated[
        float | None,
        typer.Option("--score", min=0, max=1, help="Lowest score.", show_default="0.05"),
    ] = None,
    nms: Annotated[
        float | None,
        typer.Option(help="Largest overlap of two faces.", show_default="0.3"),
    ] = None,
    pre_nms: Annotated[
        int | None,
        typer.Option(min=1, help="Most boxes that enter the suppression.", show_default="5000"),
    ] = None,
    cap: Annotated[
        int | None, typer.Option(min=1, help="Most faces a picture.", show_default="750")
    ] = None,
    landmarks: Annotated[
        bool,
        typer.Option("--landmarks", help="Measure the landmarks of found faces, too."),
    ] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Score this folder of event/name.txt instead of a model.")
    ] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="No file of predictions: nothing was found.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out pictures that are not in the folder.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only so many pictures, spread evenly.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the detections here; without, only until it is finished."),
    ] = None,
    save_predictions: Annotated[
        Path | None, typer.Option(help="Write the detections as event/name.txt.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the stamped result as JSON.")] = None,
    min_face: Annotated[
        float | None,
        typer.Option(min=1, help="Cascades: smallest face looked for, in pixels.  [default: its]"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the runtime.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    device: Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, mps.")] = "cpu",
    json: JsonOption = False,
) -> None:
    """Score MODEL, or predictions of any detector, by the WIDER FACE protocol.

    With --predictions, the options from --input to --cap say how these were made.
    """
    if (model is None) == (predictions is None):
        raise UsageError("Name a model, or give --predictions DIR: one of the two.")
    if predictions is not None and landmarks:
        raise UsageError("Predictions in files have no landmarks.\nLeave --landmarks out.")
    if predictions is not None and (folder or save_predictions):
        raise UsageError(
            "--folder and --save-predictions keep what a model finds; with --predictions there is "
            "no model.\nLeave them out."
        )
    _check_truth(truth, split or "val")
    for place in (out, save_predictions, folder):
        _check_writable(place)
    given: dict[str, Any] = {
        "rule": input_rule(input_, max_pixels, keep_lone) if input_ or model else None,
        "score_floor": score_floor,
        "nms_overlap": nms,
        "pre_nms": pre_nms,
        "cap": cap,
    }
    given = {name: value for name, value in given.items() if value is not None}

    source = source_of(data)

    from slimface.data.folders import ClassSource
    from slimface.data.widerface import read_widerface

    if model is not None and isinstance(source, ClassSource):
        score_classes(
            model, source, split or "test", out=out, threads=threads, device=device, as_json=json
        )
        return
    split = split or "val"
    if partial:
        pictures = read_widerface(source.folder(), split, partial=True)
    else:
        pictures = source.pictures(split)
    root = source.folder()
    faces = _truth(truth, root, pictures)
    if limit is not None and limit < len(pictures):
        pictures = pictures.subset([i * len(pictures) // limit for i in range(limit)])
    command = ("slimface", *sys.argv[1:])
    kept: Path | None = None
    if predictions is not None:
        faces = faces.restricted(one.name for one in pictures)
        evaluation = _score_predictions(predictions, faces, given, missing_ok, command)
    else:
        evaluation, kept = _evaluate_model(
            str(model), pictures, faces, given, threads, device, min_face=min_face,
            folder=folder, save_predictions=save_predictions, workers=workers, landmarks=landmarks,
            command=command,
        )  # fmt: skip
    if out is not None:
        _write(evaluation, out)
    if kept is not None and kept != folder:
        # Meant for interruptions: once there is a result, it would outlive changes of the code.
        shutil.rmtree(kept, ignore_errors=True)
    if json:
        print_json(evaluation.model_dump(mode="json"))
    else:
        show(evaluation)


def input_rule(text: str | None, max_pixels: int, keep_lone: bool) -> "InputRule":
    """Read an input rule as the command line spells it; None is ``original``.

    Raises:
        UsageError: There is no such rule.
    """
    from slimface.core.record import Fitted, Longest, Multiscale, Original

    name, _, number = (text or "original").partition(":")
    if keep_lone and name != "multiscale":
        raise UsageError("--keep-lone is a rule of voting.\nGive it with --input multiscale.")
    if name == "original" and not number:
        return Original(max_pixels=max_pixels or None)
    if name == "multiscale" and not number:
        if not max_pixels:
            raise UsageError(
                "multiscale needs a limit to the pixels of a pass.\nGive --max-pixels a number."
            )
        return Multiscale(max_pixels=max_pixels, keep_lone=keep_lone)
    if name == "longest" and number.isdecimal() and int(number):
        return Longest(longest_px=int(number))
    if name == "fit" and number:
        height, width = read_size(number)
        return Fitted(height_px=height, width_px=width)
    raise UsageError(
        f"--input is {text!r}; it is original, longest:N (such as longest:640), fit:WIDTHxHEIGHT "
        "or multiscale.\n"
        "Choose one of them."
    )


def _check_writable(place: Path | None) -> None:
    """Find out before the work, not after it, that its result has no place to go."""
    if place is None:
        return
    there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    fits = there.is_dir() if there != place else True
    if not fits or not os.access(there, os.W_OK):
        raise UsageError(
            f"{place} cannot be written: {there} is "
            f"{'read-only' if fits else 'not a folder'}.\nChoose another place."
        )


def _check_truth(choice: str, split: str) -> None:
    if choice not in ("auto", "wider", "annotations"):
        raise UsageError(f"--truth is {choice!r}.\nChoose auto, wider or annotations.")
    if choice == "wider" and split != "val":
        raise UsageError("WIDER FACE's official truth is of the split val.\nChoose --split val.")


def _truth(choice: str, root: Path, pictures: "PictureSet") -> "Truth":
    from slimface.evaluate.truth import Truth
    from slimface.evaluate.widerface import read_truth, truth_of

    if choice == "auto":
        return truth_of(pictures, root)
    return read_truth(root) if choice == "wider" else Truth.of(pictures)


def _evaluate_model(
    name: str,
    pictures: "PictureSet",
    truth: "Truth",
    given: dict[str, Any],
    threads: int | None,
    device: str,
    *,
    min_face: float | None,
    folder: Path | None,
    **options: Any,
) -> "tuple[Evaluation, Path]":
    """Return the evaluation and where its detections are."""
    from slimface.cli.opening import open_model
    from slimface.evaluate.evaluator import evaluate as evaluate_model

    model = open_model(name, threads=threads, device=device, min_face=min_face)
    kept = folder
    if kept is None:
        key = repr((model.fingerprint(), given, pictures.fingerprint(), truth.sha256))
        home = Path(os.environ.get("SLIMFACE_HOME", Path.home() / ".cache" / "slimface"))
        kept = home / "unfinished" / hashlib.sha256(key.encode()).hexdigest()[:16]
    evaluation = evaluate_model(
        model, pictures, truth, **given, folder=kept, progress=track, **options
    )
    return evaluation, kept


def _score_predictions(
    folder: Path, truth: "Truth", given: dict[str, Any], missing_ok: bool, command: tuple[str, ...]
) -> "Evaluation":
    from slimface.core.record import External
    from slimface.deploy.pipeline import Settings
    from slimface.evaluate.predictions import read_predictions
    from slimface.evaluate.scoring import protocol_of, score

    detections, digest = read_predictions(folder, truth.names, missing_ok=missing_ok)
    rule = given.pop("rule", External())
    return score(
        detections,
        truth,
        protocol_of(truth, rule, Settings(**given)),
        model=folder.resolve().name,
        model_fingerprint=digest,
        command=command,
    )


def show(evaluation: "Evaluation") -> None:
    """Print the figures with their stamp, and the protocol the stamp stands for."""
    protocol = evaluation.protocol
    title = f"{evaluation.model} on {protocol.scope}, average precision in percent"
    columns = ["subset", "AP", "95 % interval", "faces", "protocol"]
    print_table(title, columns, [_row(r, evaluation.stamp) for r in evaluation.subsets])
    rows = [_row(result, evaluation.stamp) for result in evaluation.by_height if result.faces]
    print_table(
        "The same faces by height",
        ["height", "AP", "faces", "protocol"],
        [[name, figure, faces, stamp] for name, figure, _, faces, stamp in rows],
    )
    if evaluation.landmarks is not None:
        _show_landmarks(evaluation.landmarks, evaluation.stamp)
    terms = [
        f"score >= {protocol.score_floor:g}" if protocol.score_floor is not None else "",
        f"NMS {protocol.nms_overlap:g}" if protocol.nms_overlap is not None else "",
        f"{protocol.cap} faces at most" if protocol.cap is not None else "",
        f"evaluator {protocol.evaluator}",
        f"truth {protocol.truth_sha256[:12]}",
    ]
    diary.print(f"Protocol {evaluation.stamp}: {protocol.input}; " + ", ".join(filter(None, terms)))
    if protocol.pictures < protocol.pictures_in_truth:
        diary.print(
            f"Only {protocol.pictures} of {protocol.pictures_in_truth} pictures were scored: "
            f"this is no figure for {protocol.truth}."
        )


def _show_landmarks(error: "LandmarkError", stamp: str) -> None:
    def percent(value: float | None) -> str:
        return "?" if value is None else f"{100 * value:.2f}"

    faces = f"{error.faces} of {error.annotated}"
    print_table(
        f"Landmarks of faces found (overlap {error.match_overlap:g}), in percent of the distance "
        "between the eyes",
        ["mean error", "median", f"above {100 * error.failure_above:g}", "faces", "protocol"],
        [[percent(error.mean), percent(error.median), percent(error.failures), faces, stamp]],
    )


def _row(result: "SubsetResult", stamp: str) -> list[str]:
    def percent(value: float | None) -> str:
        return "?" if value is None else f"{100 * value:.1f}"

    interval = "" if result.low is None else f"{percent(result.low)} to {percent(result.high)}"
    return [result.name, percent(result.average_precision), interval, str(result.faces), stamp]


def _write(evaluation: "Evaluation", out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, evaluation.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror}).\nMake room or choose another place."
        ) from error
    diary.print(f"Result: {out}")
