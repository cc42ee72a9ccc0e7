"""``slimface quantize``: a file of eight bits, run where it will run, and what it cost."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.cli.run import (
    DataOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    WorkersOption,
    carry_out,
    source_of,
)
from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.compress.quantize.ptq import Quantized
    from slimface.compress.quantize.side import SideBySide

EPOCHS = 3
"""Length of a training in fake bits, where none is given."""

DETECTOR_EPOCHS = 1
"""The same of detectors of one net."""

RATE = 1e-5
"""The same of the learning rate, but for classifiers."""

WINDOWS = {"kind": "s3fd", "native_share": 1, "colour_share": 0}
"""What detectors learn from: windows of pictures as they are, where the small faces are that
rounding loses first."""

TAUGHT = {
    "kind": "distill",
    "teacher": "step:0",
    "weight": 1.0,
    "temperature": 1.0,
    "box_weight": 0.2,
    "floor": 0.05,
    "negatives_per_positive": 7.0,
}
"""What the float model says is what the rounded one is to say, wherever it sees some face."""


def quantize(
    model: Annotated[
        str, typer.Argument(help="Name of the zoo, checkpoint, or exported float .onnx file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; qat: the run folder.  [default: the model's name and -int8, here]"
        ),
    ] = None,
    data: DataOption = "drawn",
    method: Annotated[
        str, typer.Option(help="ptq: calibrate only. qat: train in fake eight bits first.")
    ] = "ptq",
    runtime: Annotated[
        str, typer.Option(help="onnxruntime (QDQ, also for OpenVINO and OpenCV), openvino.")
    ] = "onnxruntime",
    ranges: Annotated[
        str, typer.Option(help="best (measured), minmax, percentile, mse, entropy.")
    ] = "best",
    keep: Annotated[
        str,
        typer.Option(
            help="Layers to leave in float32, by comma: auto, stem, heads, none, parts of names."
        ),
    ] = "auto",
    sqnr: Annotated[
        float | None,
        typer.Option(
            min=0, max=60, help="Decibels that auto aims at.  [default: 16; 24 for a cascade]"
        ),
    ] = None,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="Weights of 7 bits: x86 without VNNI.")
    ] = False,
    bits: Annotated[
        int, typer.Option(help="Of weights: 8, or 4 (onnxruntime; train with them: --method qat).")
    ] = 8,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures to calibrate on.")] = 32,
    compared: Annotated[int, typer.Option(min=1, help="Pictures to compare on.")] = 20,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="qat: length of the training.  [default: 1; cascades, classifiers: 3]"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", "--lr", help="qat.  [default: 1e-5; classifiers: as train goes on]"
        ),
    ] = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Write MODEL in eight bits or fewer, run the file, and say what it cost and bought."""
    import tempfile

    from slimface.compress.quantize.export import spread, write_float
    from slimface.compress.quantize.ptq import SUFFIXES
    from slimface.compress.quantize.ptq import quantize as quantize_file
    from slimface.compress.quantize.settings import Quantization
    from slimface.compress.quantize.side import agreement, speed
    from slimface.deploy.runtimes.cascade import is_cascade

    asked: dict[str, Any] = {
        "runtime": runtime,
        "ranges": ranges,
        "keep": tuple(part.strip() for part in keep.split(",") if part.strip()),
        "reduce_range": reduce_range,
        "bits": bits,
        **({} if sqnr is None else {"sqnr_db": sqnr}),
    }
    settings = Quantization.parse(asked, where="slimface quantize")
    if method == "qat":
        recipe = _recipe(model, data, asked, pictures, compared, epochs, learning_rate, seed)
        carry_out(recipe, out, device=device, workers=workers, as_json=json)
        return
    if method != "ptq" or epochs is not None or learning_rate is not None:
        raise UsageError(
            f"--method {method}: there are ptq and qat, and --epochs and --lr are for qat.\n"
            "Leave the one or the other out."
        )
    source = source_of(data)
    with ExitStack() as stack:
        file = Path(model)
        if not (file.suffix == ".onnx" or is_cascade(file)):
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            file = write_float(_opened(model), scratch)
        suffix = "" if is_cascade(file) else SUFFIXES[settings.runtime]
        path = out or Path(f"{Path(model.partition(',')[0]).stem}-int8{suffix}")
        if path.resolve() == file.resolve():
            raise UsageError(f"{path} is the float file itself.\nChoose another --out.")
        seen = track(spread(source, "train", pictures), "calibrating", total=pictures)
        found = quantize_file(file, path, settings, seen, track=track)
        shown = list(spread(source, _unseen(source), compared))
        report = agreement(file, path, track(shown, f"running {path.name}"))
        times = speed(file, path, shown[0][1])
    if json:
        print_json(
            {
                "file": str(path),
                "quantized": found.model_dump(mode="json"),
                "parity": report.model_dump(mode="json"),
                "times": times.model_dump(mode="json") | {"slower": times.slower},
            }
        )
    else:
        _show(str(path), found, report.explain(), times)
    if times.slower:
        diary.print(
            "[bold yellow]Warning:[/] on this machine the quantised file is slower: "
            f"{times.explain()}.\n"
            "Smaller it is. Another --runtime, or --keep stem,auto may be faster; on other "
            "processors measure again with: slimface benchmark FLOAT INT8",
            soft_wrap=True,
        )


def _recipe(
    model: str,
    data: str,
    settings: dict[str, Any],
    pictures: int,
    compared: int,
    epochs: int | None,
    learning_rate: float | None,
    seed: int,
) -> Any:
    """Training in fake eight bits, then the file and its evaluation, as a recipe."""
    from slimface.recipe.recipe import Recipe
    from slimface.recipe.start import spec_of

    spec = spec_of(model)
    epochs = epochs or (DETECTOR_EPOCHS if spec.task == "detection" else EPOCHS)
    courses = _courses(spec, epochs, learning_rate)
    bits = settings["bits"]
    # The training chooses what is rounded, and the file has just that.
    rounding = {name: value for name, value in settings.items() if name != "runtime"}
    file = {"kind": "quantize", "pictures": pictures, "compared": compared, **settings}
    return Recipe.parse(
        {
            "name": f"quantize-{Path(model).stem}",
            "about": f"{model} trained with weights of {bits} bits, epochs: {epochs}.",
            "model": model,
            "source": source_of(data),
            "seed": seed,
            "steps": [
                {"kind": "evaluate"},
                *(
                    {"kind": "qat", "train": one, "pictures": pictures, **rounding}
                    for one in courses
                ),
                file,
                {"kind": "evaluate", "of": "file"},
            ],
        },
        where="the command",
    )


def _courses(spec: Any, epochs: int, learning_rate: float | None) -> list[dict[str, Any]]:
    """Return the training of a model in fake bits, or that of each net of a cascade."""
    from slimface.core.spec import CASCADE_NETS
    from slimface.train.presets import adapted, preset

    if spec.task == "cascade":
        schedule = {
            "epochs": epochs,
            "batch_size": 512,
            "optimizer": "adam",
            "learning_rate": learning_rate or RATE,
            "weight_decay": 0,
        }
        taught = {"kind": "train_net", "schedule": schedule, "criterion": TAUGHT}
        return [{**taught, "net": net} for net in CASCADE_NETS]
    if spec.task == "classification":
        course = adapted(
            preset(spec),
            onwards=True,
            frozen_norms=True,
            epochs=epochs,
            learning_rate=learning_rate,
        )
        return [course.model_dump()]
    plan = preset(spec).model_dump()
    schedule = {
        "epochs": epochs,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": learning_rate or RATE,
        "weight_decay": 0,
        "ema": 0.95,
        "frozen_norms": True,
    }
    plan |= {"size_px": 320, "augment": WINDOWS, "schedule": schedule}
    return [{**plan, "criterion": {**TAUGHT, "of": plan["criterion"]}}]


def _unseen(source: Any) -> str:
    """The split to compare on: not that which is calibrated on."""
    from slimface.data.folders import ClassSource

    return "test" if isinstance(source, ClassSource) else "val"


def _opened(model: str) -> Any:
    from slimface.loading import COMPOSED
    from slimface.model.cascade import open_composed
    from slimface.model.checkpoint import load_checkpoint

    if COMPOSED.search(model):
        return open_composed(model)[0]
    if Path(model).suffix == ".safetensors":
        return load_checkpoint(Path(model)).network
    from slimface.cli.opening import open_model

    opened = open_model(model)
    network: Any = getattr(opened.network, "detector", None)
    if network is None:
        raise UsageError(
            f"{model} is exported already, and not to ONNX.\n"
            "Name the checkpoint it was exported from, its .onnx file, or a model of the zoo."
        )
    return network


def _show(path: str, found: "Quantized", agreement: str, times: "SideBySide") -> None:
    rows = [
        ("file, bytes", f"{found.float_bytes:,}", f"{found.bytes:,}"),
        ("one picture, ms", f"{times.float_ms:.2f}", f"{times.ms:.2f}"),
    ]
    lines = [agreement.partition("\n")[0]]
    for one in found.networks:
        what = f"{one.name}: " if one.name else ""
        kept = f"; in float32 stay {', '.join(one.kept)}" if one.kept else ""
        lines.append(f"{what}{found.in_bits(one)}, signal over noise {one.sqnr_db:.1f} dB{kept}")
    print_table(path, ("", "float32", f"int{found.settings.bits}"), rows, caption="\n".join(lines))
