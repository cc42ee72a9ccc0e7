"""Bundle: one folder with all that runs a detector elsewhere, and proves that it runs right.

spec.json        how to feed and read the network: ``slimface.core.bundle``, schema published
models/          the network, in one format or several
golden/          a picture, the tensors that go in and come out, and the faces in it
runners/         sources that need nothing but spec.json and a model
parity.json      how well each file agrees with the detector it came from
latency.json     how long each takes, on the machine that is named there
provenance.json  where the detector comes from, and under which licence
README.md        all of this for people
SHA256SUMS       the digests
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any, cast

from slimface.core.benchmark import Benchmark
from slimface.core.bundle import Bundle, ModelFile
from slimface.core.spec import ModelSpec
from slimface.deploy.pipeline import Picture, Pipeline
from slimface.deploy.runtimes import RUNTIMES
from slimface.deploy.runtimes.opening import Described
from slimface.errors import UsageError
from slimface.export.form import Form
from slimface.export.gate import export
from slimface.export.golden import golden
from slimface.export.parity import ParityReport, Tolerance
from slimface.export.pictures import sample_pictures
from slimface.files import beside_folder, write_text
from slimface.loading import load
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN

SPEC, GOLDEN, PARITY, LATENCY = "spec.json", "golden", "parity.json", "latency.json"

APPS = files("slimface.export") / "apps"

RUNNERS = {"detection": ("python", "js", "cpp", "kotlin"), "cascade": ("js", "cpp", "kotlin")}
"""Task -> the languages in which there is a runner."""

Measure = Callable[[Sequence[Path]], Iterable[Benchmark]]
"""From model files to what they cost: ``slimface.bench.latency.benchmark`` with its options."""


def export_bundle(
    detector: Detector,
    folder: Path,
    form: Form,
    *,
    others: Sequence[Form] = (),
    pictures: Iterable[tuple[str, Picture]] | None = None,
    score: float = 0.3,
    tolerance: Tolerance | None = None,
    provenance: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
) -> ParityReport:
    """Write a bundle.

    Args:
        detector: What to export.
        folder: The folder to make; one that slimface made before is replaced at the very end.
        form: How the network leaves.
        others: Further formats, a file each.
        pictures: As for ``slimface.export.gate.export``, like the arguments that follow.
        score: See there.
        tolerance: See there.
        provenance: See there.
        measure: Measures the files; without it no latency is said.

    Returns:
        How well the first file agrees with the detector; ``parity.json`` says it of all.

    Raises:
        UsageError: The model is of another task, or a format cannot be checked elsewhere.
        ParityError: A file finds other faces, or none at all.
    """
    forms = (form, *others)
    _check(detector, forms)
    seen = list(sample_pictures() if pictures is None else pictures)
    said = dict(provenance or {})
    with beside_folder(folder) as part:
        reports: dict[str, ParityReport] = {}
        entries: list[ModelFile] = []
        for each in forms:
            place = _place(detector, each)
            reports[place] = export(
                detector,
                part / place,
                each,
                pictures=seen,
                score=score,
                tolerance=tolerance,
                provenance=said,
            )
            entries.append(_prove(part, place, each, entries))
        spec = detector.spec
        bundle = write_spec(part, spec, entries, said)
        times = list(measure([part / entry.path for entry in entries])) if measure else []
        _write(part / PARITY, {key: one.model_dump(mode="json") for key, one in reports.items()})
        _write(part / LATENCY, [one.model_dump(mode="json") for one in times])
        _write(part / "provenance.json", said)
        copy_runners(part / "runners", bundle.spec.task)
        write_text(part / "README.md", _readme(bundle, reports, times, said))
    return reports[entries[0].path]


def copy_runners(folder: Path, task: str) -> None:
    """Write the sources of all runners for a task; they read ``spec.json`` of their bundle."""
    for language in RUNNERS[task]:
        copy_tree(APPS / "runners" / language, folder / language)
    copy_tree(APPS / "js", folder / "js")
    write_text(folder / "README.md", _said_of_runners(task))


def _said_of_runners(task: str) -> str:
    name = "cascade.md" if task == "cascade" else "README.md"
    return (APPS / "runners" / name).read_text(encoding="utf-8")


def copy_tree(source: Traversable, folder: Path) -> None:
    """Copy files that come with slimface; what an interpreter or a build left there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        if item.name in ("__pycache__", "build", "node_modules"):
            continue
        if item.is_dir():
            copy_tree(item, folder / item.name)
        else:
            (folder / item.name).write_bytes(item.read_bytes())


def _check(detector: Detector, forms: Sequence[Form]) -> None:
    task = detector.spec.task
    if task not in ("detection", "cascade"):
        raise UsageError(
            f"{detector.spec.name} is for {task}; bundles hold detectors.\n"
            "Export it to one file, such as --format onnx."
        )
    names = [form.kind for form in forms]
    if not forms or len(set(names)) < len(names):
        raise UsageError(
            f"the formats of a bundle are {', '.join(names) or 'none'}; "
            "it holds one file of each, and at least one.\nName each once."
        )
    for form in forms:
        if Path(f"model{form.suffix}").suffix not in RUNTIMES:
            raise UsageError(
                f"a file of {form.kind} has no runtime here, so nobody could verify it.\n"
                f"Export it on its own: slimface export MODEL --format {form.kind}"
            )


def _place(detector: Detector, form: Form) -> str:
    folder = isinstance(detector, MTCNN)
    return f"models/{form.kind}" if folder else f"models/model{form.suffix}"


def _prove(part: Path, place: str, form: Form, before: Sequence[ModelFile]) -> ModelFile:
    """Describe a file, and write its golden picture unless it shares that of one before it."""
    pipeline = load(part / place)
    entry = described(pipeline, place, form)
    for other in before:
        if (other.outputs, other.canvas) == (entry.outputs, entry.canvas):
            return entry.model_copy(update={"golden": other.golden})
    name = f"{GOLDEN}-{form.kind}" if before else GOLDEN
    golden(pipeline).write(part / name)
    return entry.model_copy(update={"golden": name})


def described(pipeline: Pipeline, place: str, form: Form) -> ModelFile:
    """Return what ``spec.json`` says of a file."""
    is_one = pipeline.spec.task == "detection"
    outputs = cast(Described, pipeline.network).description.outputs if is_one else "raw"
    said = {
        "path": place,
        "format": form.kind,
        "runtime": pipeline.runtime,
        "precision": form.precision,
        "outputs": outputs,
        "canvas": pipeline.canvas,
    }
    return ModelFile.parse(said, where=place)


def write_spec(
    folder: Path, spec: ModelSpec, entries: Sequence[ModelFile], provenance: Mapping[str, Any]
) -> Bundle:
    """Write ``spec.json`` into a folder with model files, and return what it says."""
    said = {
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "files": [entry.model_dump(mode="json") for entry in entries],
        "licence": str(provenance.get("licence") or ""),
    }
    bundle = Bundle.parse(said, where=SPEC)
    _write(folder / SPEC, bundle.model_dump(mode="json"))
    return bundle


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _readme(
    bundle: Bundle,
    reports: Mapping[str, ParityReport],
    times: Sequence[Benchmark],
    provenance: Mapping[str, Any],
) -> str:
    template = Template((APPS / "bundle" / "README.md").read_text(encoding="utf-8"))
    rows = [
        f"| `{entry.path}` | {entry.runtime} | {entry.precision} | {entry.outputs} "
        f"| {'any' if entry.canvas is None else '{1}x{0}'.format(*entry.canvas)} "
        f"| {reports[entry.path].matched_share:.2%} of {reports[entry.path].faces} |"
        for entry in bundle.files
    ]
    return template.substitute(
        name=bundle.name,
        files="\n".join(rows),
        latency=_latency_table(times),
        landmarks=f"{bundle.spec.landmarks} landmarks" if bundle.spec.landmarks else "no landmarks",
        licence=bundle.licence or "nobody has said it; ask whoever gave you the weights",
        origin=provenance.get("origin") or "not said",
        runners=_said_of_runners(bundle.spec.task).partition("\n\n")[2],
    )


def _latency_table(times: Sequence[Benchmark]) -> str:
    if not times:
        return "Not measured. On your machine: `slimface benchmark` with the files in `models`."
    head = (
        "| file | size | threads | median ms | 10 to 90 % | network ms | runtime |\n"
        "|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| `{one.model}` | {one.width}x{one.height} | {one.threads} | {one.total.median_ms:.2f} "
        f"| {one.total.p10_ms:.2f} to {one.total.p90_ms:.2f} | {one.network.median_ms:.2f} "
        f"| {one.runtime} {one.machine.versions.get(one.runtime, '')} |"
        for one in times
    ]
    first = times[0]
    stamp = (
        f"From an 8-bit picture in memory to its faces, on {first.machine.processor} "
        f"({first.machine.cores} cores, {first.machine.system}), load "
        f"{first.load_average if first.load_average is not None else 'unknown'}, "
        f"{first.date:%Y-%m-%d}; all of it in `latency.json`."
    )
    return "\n".join([head, *rows, "", stamp])
