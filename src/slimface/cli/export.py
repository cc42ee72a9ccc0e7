"""``slimface export``: a file for devices, kept only if it finds the same faces."""

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from slimface.cli.console import diary, print_json, track
from slimface.cli.size import read_size
from slimface.errors import UsageError
from slimface.files import bytes_of

PICTURES = 50

APPS = ("web", "android", "bundle")
"""Folders around a file, ONNX if nothing else is said."""

FORMATS = (
    "onnx",
    "openvino",
    "ncnn",
    "executorch",
    "litert",
    "torchscript",
    "torchmobile",
    "cweights",
)


def export(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")],
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS + APPS)}.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file.  [default: the model's name, here]")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Put scores and boxes out, not logits and offsets.")
    ] = False,
    nms: Annotated[
        bool,
        typer.Option("--nms", help="onnx: decode and suppress within the graph; faces come out."),
    ] = False,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Accept one picture of --size only.")
    ] = False,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT to trace and check with.")] = "640x480",
    precision: Annotated[str, typer.Option(help="float32, float16.")] = "float32",
    opset: Annotated[
        int | None, typer.Option(help="onnx: version of the operator set.  [default: 18]")
    ] = None,
    exporter: Annotated[
        str | None, typer.Option(help="onnx: which of torch's: torchscript, dynamo.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help=f"Compare on {PICTURES} of this folder's pictures.  [default: drawn]"),
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Faces below this score are not compared.")
    ] = 0.3,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least share of faces to match.  [default: 0.995]"),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="web: npm package of onnxruntime-web.  [default: fetched with npm]"),
    ] = None,
    files: Annotated[
        str, typer.Option(help="bundle: the formats of its model files, such as onnx,ncnn.")
    ] = "onnx",
    measure: Annotated[
        bool, typer.Option(help="bundle: measure how long its files take, and say so.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Write MODEL to a file for devices, and keep it only if it finds the same faces."""
    height, width = read_size(size)
    from slimface.export.android import export_android
    from slimface.export.bundle import export_bundle
    from slimface.export.classes import drawn_heads
    from slimface.export.formats import format_named
    from slimface.export.gate import export as export_file
    from slimface.export.parity import TOLERANCES
    from slimface.export.pictures import read_pictures, sample_pictures
    from slimface.export.web import export_web
    from slimface.model.classifier import Classifier
    from slimface.model.mtcnn import MTCNN

    names = files.split(",") if form == "bundle" else ["onnx" if form in APPS else form]
    kinds = [format_named(name.strip()) for name in names]
    asked = {"opset": opset, "exporter": exporter, "dynamic": False if fixed else None}
    if nms:
        if form != "onnx":
            raise UsageError(
                f"{form} files are not suppressed within the graph.\n"
                "Leave --nms out, or choose --format onnx."
            )
        asked["suppress"] = True
    options = {
        "decode": decode or nms,
        "precision": precision,
        "height": height,
        "width": width,
        **{name: value for name, value in asked.items() if value is not None},
    }
    where = f"slimface export --format {form}"
    writer, *others = (kind.parse(options, where=where) for kind in kinds)
    limits = TOLERANCES[writer.precision]
    if tolerance is not None:
        limits = limits.model_copy(update={"matched": tolerance})
    detector, provenance = _open(model)
    is_folder = form in APPS or isinstance(detector, MTCNN)
    path = out or Path(_stem(model) + (f"-{form}" if is_folder else writer.suffix))
    write: Any = export_file
    if form == "web":
        write = functools.partial(export_web, runtime=runtime)
    elif form == "android":
        write = export_android
    elif form == "bundle":
        times = _measured(height, width) if measure else None
        write = functools.partial(export_bundle, others=others, measure=times)
    seen = read_pictures(pictures, limit=PICTURES) if pictures else sample_pictures()
    if isinstance(detector, Classifier) and form not in APPS:
        write = _export_classifier
        seen = read_pictures(pictures, limit=PICTURES) if pictures else drawn_heads()
    report = write(
        detector,
        path,
        writer,
        pictures=track(seen, f"checking {path.name}"),
        score=score,
        tolerance=limits,
        provenance=provenance,
    )
    if json:
        parity = report.model_dump(mode="json")
        size_bytes = bytes_of(path)
        print_json({"file": str(path), "format": form, "bytes": size_bytes, "parity": parity})
        return
    what = "Folder" if path.is_dir() else "File"
    diary.print(f"{what}: {path} ({bytes_of(path):,} bytes)", markup=False)


def _measured(height: int, width: int) -> Any:
    """Return what measures the files of a bundle: with one thread, at the size of the export."""
    from slimface.bench.latency import benchmark

    return functools.partial(benchmark, sizes=[(height, width)], rounds=3, runs=10, track=_rounds)


def _rounds(items: Any, size: str) -> Any:
    return track(items, f"measuring at {size}")


def _export_classifier(
    classifier: Any,
    path: Path,
    form: Any,
    *,
    pictures: Any,
    provenance: dict[str, Any],
    **_of_boxes: Any,
) -> Any:
    from slimface.export.classes import export_classifier

    return export_classifier(classifier, path, form, pictures=pictures, provenance=provenance)


def _stem(model: str) -> str:
    """A name for the file: that of the model, or of the cascade whose nets are replaced."""
    return Path(model.partition(",")[0]).stem


def _open(model: str) -> tuple[Any, dict[str, Any]]:
    """Return a model that can still be traced, and where it comes from."""
    from slimface.loading import COMPOSED, load
    from slimface.model.cascade import open_composed
    from slimface.model.checkpoint import load_checkpoint

    path = Path(model)
    detector: Any
    if COMPOSED.search(model):
        detector, origin = open_composed(model)
        provenance = origin.model_dump(mode="json", exclude_none=True)
    elif path.suffix == ".safetensors":
        checkpoint = load_checkpoint(path)
        detector = checkpoint.network
        provenance = checkpoint.provenance.model_dump(mode="json", exclude_none=True)
    else:
        pipeline = load(model)
        if not hasattr(pipeline.network, "detector"):
            raise UsageError(
                f"{path} is exported already.\n"
                "Name the checkpoint it was exported from, or a model of the zoo."
            )
        detector = pipeline.network.detector
        provenance = _published(model)
    return detector, {"model": path.stem, **provenance}


def _published(name: str) -> dict[str, Any]:
    from slimface.model import zoo

    known = zoo.entry(name)
    return {"origin": known.origin, "licence": known.licence}
