"""``slimface parity``: do two models find the same faces?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimface.cli.console import console, print_json, print_table, track
from slimface.errors import ParityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimface.deploy.pipeline import Picture
    from slimface.export.parity import ParityReport


def parity(
    reference: Annotated[str, typer.Argument(help="The side that is right: name or file.")],
    candidate: Annotated[str, typer.Argument(help="The side that is checked: name or file.")],
    pictures: Annotated[
        Path | None, typer.Argument(help="Folder with pictures of faces.  [default: drawn]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Compare on so many pictures.  [default: all]")
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Faces below this score are not compared.")
    ] = 0.3,
    precision: Annotated[
        str, typer.Option(help="What to expect of the numbers: float32, float16, int8.")
    ] = "float32",
    iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Boxes that overlap less are not the same.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least share of faces to match.")
    ] = None,
    score_drift: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest difference in score.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Name the first layer that departs (torch, ONNX).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Compare the faces that two models or files find; exit code 1 if they differ."""
    from slimface.export.parity import TOLERANCES, on_one_canvas
    from slimface.export.parity import parity as compare
    from slimface.export.pictures import SCENES, read_pictures, sample_pictures
    from slimface.loading import load

    if precision not in TOLERANCES:
        raise UsageError(f"--precision is '{precision}'.\nChoose {', '.join(TOLERANCES)}.")
    asked = {"iou": iou, "matched": tolerance, "score_drift": score_drift}
    limits = TOLERANCES[precision].model_copy(
        update={name: value for name, value in asked.items() if value is not None}
    )

    def seen() -> "Iterator[tuple[str, Picture]]":
        return (
            read_pictures(pictures, limit=limit) if pictures else sample_pictures(limit or SCENES)
        )

    sides = on_one_canvas(load(reference), load(candidate))
    names = (reference, candidate)
    shown = track(seen(), "comparing", total=limit)
    report = compare(*sides, shown, score=score, tolerance=limits, names=names)
    departure = None
    if bisect:
        from slimface.export.bisect import GAPS
        from slimface.export.bisect import bisect as first_departure

        picture = next(seen())[1]
        departure = first_departure(*sides, picture, allowed=GAPS[precision], names=names)
    if json:
        verdict = {"agrees": report.agrees, "matched_share": report.matched_share}
        found = {} if departure is None else {"bisect": departure.model_dump(mode="json")}
        print_json({**report.model_dump(mode="json"), **verdict, **found})
    else:
        show(report)
        if departure is not None:
            words = departure.explain()
            console.print(f"{words[0].upper()}{words[1:]}.", markup=False, soft_wrap=True)
    if not report.agrees:
        raise ParityError(
            f"{report.explain()}.\n"
            "If that much is fine, say so with --precision, --iou, --tolerance or --score-drift."
        )


def show(report: "ParityReport") -> None:
    """Print a report as a table."""
    allowed = report.tolerance
    landmarks = report.largest_landmark_drift
    print_table(
        f"{report.candidate} against {report.reference}",
        ["", "found", "allowed"],
        [
            ["pictures", report.pictures, ""],
            [f"faces of score {report.score:g} and more", report.faces, ""],
            ["matched", report.matched, ""],
            ["missed", report.missed, ""],
            ["extra", report.extra, ""],
            ["share that agrees", f"{report.matched_share:.2%}", f"{allowed.matched:.2%}"],
            ["smallest overlap", f"{report.smallest_iou:.4f}", f"{allowed.iou:g}"],
            ["largest difference in score", f"{report.largest_score_drift:.1e}",
             f"{allowed.score_drift:g}"],
            *([["largest shift of a landmark / width", f"{landmarks:.1e}",
               f"{allowed.landmark_drift:g}"]] if landmarks is not None else []),
            ["mean difference in score", f"{report.mean_score_drift:.1e}", ""],
        ],
    )  # fmt: skip
