"""``slimface shrink``: make a masked model physically smaller, with the same outputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimface.cli.console import diary, print_json, print_table, track
from slimface.errors import UsageError

if TYPE_CHECKING:
    from slimface.compress.shrink import ShrinkReport
    from slimface.model.checkpoint import Provenance
    from slimface.model.network import Network

_PICKLES = frozenset({".pth", ".pt"})


def shrink(
    model: Annotated[
        str, typer.Argument(help="Masked model: name of the zoo, checkpoint, or .pth file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The smaller checkpoint.  [default: NAME-shrunk, here]")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="For a .pth file: the model of the zoo it is a variant of.")
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Smaller still, but not exact at the maps' borders.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of pictures on which both models are compared.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Compare on so many of them.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Remove the zeroed filters of MODEL for good; what they still send on is carried exactly."""
    from slimface.compress.shrink import shrink as shrink_network
    from slimface.export.pictures import read_pictures
    from slimface.model.checkpoint import fingerprint, save

    if limit is not None and pictures is None:
        raise UsageError("--limit is for --pictures, which is not given.\nAdd it, or leave both.")
    path = out or Path(f"{Path(model).stem}-shrunk.safetensors")
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no checkpoint's name.\nLet --out end in .safetensors.")
    if path.resolve() == Path(model).resolve():
        raise UsageError(f"{path} is the masked model itself.\nChoose another --out.")
    network, provenance, size_bytes = _open(model, like)
    seen = None
    if pictures is not None:
        named = track(read_pictures(pictures, limit=limit), "comparing", total=limit)
        seen = (picture for _, picture in named)
    found = shrink_network(network, exact=not fold, pictures=seen)
    command = f"slimface shrink {model}{f' --like {like}' if like else ''}{' --fold' * fold}"
    origin = {"parent": fingerprint(network), "recipe": command}
    save(found.network, path, provenance=provenance.model_copy(update=origin))
    after_bytes = path.stat().st_size
    if json:
        files = {"before_bytes": size_bytes, "after_bytes": after_bytes}
        content = found.report.model_dump(mode="json")
        for side in ("before", "after"):
            del content[side]["layers"]
        print_json({"file": str(path), **files, "report": content})
        return
    _show(found.report, size_bytes, after_bytes)
    diary.print(f"File: {path} ({after_bytes:,} bytes)", markup=False)


def _open(model: str, like: str | None) -> "tuple[Network, Provenance, int]":
    """Return the masked model, where it comes from, and the bytes of its files."""
    from slimface.cli.opening import open_model
    from slimface.model import zoo
    from slimface.model.checkpoint import load_checkpoint

    path = Path(model)
    if path.suffix in _PICKLES:
        return _open_pickle(path, like)
    if like is not None:
        raise UsageError(f"--like is for .pth files; {model} says itself what it is.\nLeave it.")
    if path.suffix == ".safetensors":
        checkpoint = load_checkpoint(path)
        return checkpoint.network, checkpoint.provenance, path.stat().st_size
    pipeline = open_model(model)
    if not hasattr(pipeline.network, "detector"):
        raise UsageError(
            f"{model} is exported, and can no longer be taken apart.\n"
            "Name the checkpoint it was exported from."
        )
    entry = zoo.entry(model)
    return pipeline.network.detector, entry.provenance, sum(file.size for file in entry.files)


def _open_pickle(path: Path, like: str | None) -> "tuple[Network, Provenance, int]":
    from slimface.model import zoo
    from slimface.model.checkpoint import Provenance

    known = zoo.recognise(path) if path.is_file() else None
    if like is None and known is None and path.is_file():
        raise UsageError(
            f"{path} does not say which variant of which model it holds.\n"
            f"Say it with --like NAME; names are {', '.join(zoo.names())}."
        )
    detector = zoo.import_weights(path, like=like or (known.name if known else zoo.names()[0]))
    provenance = known.provenance if known else Provenance(origin=path.name)
    return detector, provenance, path.stat().st_size


def _show(report: "ShrinkReport", before_bytes: int, after_bytes: int) -> None:
    before, after = report.before, report.after
    size = f"{before.width}x{before.height}"
    rows = [
        _row("parameters", before.parameters, after.parameters),
        _row(f"MACs at {size}", before.macs, after.macs),
        _row("file, bytes", before_bytes, after_bytes),
    ]
    print_table(
        f"{report.model}, {'exact' if report.exact else 'folded'}",
        ("", "before", "after", "change"),
        rows,
        caption=_caption(report),
    )
    if report.kept:
        print_table(
            "Zeroed filters that had to stay",
            ("layer", "filters", "why"),
            [(kept.layer, kept.filters, kept.reason) for kept in report.kept],
        )


def _row(name: str, before: int, after: int) -> tuple[str, ...]:
    return name, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}"


def _caption(report: "ShrinkReport") -> str:
    stay = sum(kept.filters for kept in report.kept)
    lines = [
        f"{report.zeroed} zeroed filters: {report.removed} removed, {report.carried} carry what "
        f"the others send on (or are a layer's last), {stay} had to stay",
        f"outputs on noise differ by {report.noise_drift:.1e} of their range",
    ]
    if report.pictures:
        offsets = report.offset_drift
        of_boxes = "" if offsets is None else f", offsets by up to {offsets:.1e}"
        lines.append(
            f"on {report.pictures} pictures scores differ by up to {report.score_drift:.1e}"
            f"{of_boxes}"
        )
    return "\n".join(lines)
