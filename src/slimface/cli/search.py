"""``slimface search``: the rates of groups of layers that lose least under a budget."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimface.cli.console import diary, print_json, print_table, progress_bar
from slimface.cli.run import (
    DataOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    WorkersOption,
    source_of,
)

if TYPE_CHECKING:
    from slimface.compress.search.result import Finding

_SHOWN = 10
"""Finalists in the table."""


def search(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a checkpoint.")] = "eresfd",
    budget: Annotated[
        list[str] | None,
        typer.Option(help="'-40% macs', '60k params', '-30% ms@onnxruntime:1t'; all are met."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates to judge.")] = 1000,
    sampler: Annotated[str, typer.Option(help="tpe, gp (slow, for dear candidates), random.")] = (
        "tpe"
    ),
    importance: Annotated[
        str, typer.Option(help="Which channels of a group go: as in `slimface prune`.")
    ] = "fpgm",
    variables: Annotated[
        str, typer.Option(help="Parts with a rate each: a number, or eresfd-script, extd, …")
    ] = "24",
    max_rate: Annotated[float, typer.Option(help="Share of a group that may go at most.")] = 0.9,
    multiple_of: Annotated[int, typer.Option(min=1, help="Round widths up to a multiple.")] = 1,
    front: Annotated[
        bool, typer.Option(help="Search all costs from the first budget up to the whole model.")
    ] = False,
    repair: Annotated[
        str,
        typer.Option(
            help="Before a candidate is judged: norms (their statistics taken anew), or "
            "reconstruct (all weights solved for)."
        ),
    ] = "norms",
    trained: Annotated[int, typer.Option(min=0, help="The best, to be trained shortly.")] = 16,
    verified: Annotated[int, typer.Option(min=0, help="The best of these, to be scored.")] = 4,
    verify_on: Annotated[
        str, typer.Option(help="held_out (of the training pictures) or val.")
    ] = "held_out",
    preset: Annotated[
        str | None, typer.Option(help="b-fpgm: the published search, for comparison.")
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="With all defects of the published search.")
    ] = False,
    target: Annotated[
        float, typer.Option(help="b-fpgm: share of the parameters to be zero.")
    ] = 0.5,
    minutes: Annotated[
        float | None, typer.Option(help="Draw no further candidate after this time.")
    ] = None,
    data: DataOption = "drawn",
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the study; the same one goes on.  [default: runs/search-…]"),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="URL of a database, for several machines.", show_default=False)
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="The best model.  [default: best.safetensors there]")
    ] = None,
    device: DeviceOption = "cpu",
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Search the rates that lose least under a budget; killed, it goes on where it was."""
    from slimface.errors import UsageError

    if preset not in (None, "b-fpgm"):
        raise UsageError(f"There is no preset {preset!r}.\nThere is b-fpgm.")
    if faithful and preset is None:
        raise UsageError("--faithful belongs to --preset b-fpgm.\nGive both or neither.")
    if (preset is None) != bool(budget):
        raise UsageError(
            "A search needs a budget, such as --budget '-40% macs'; the preset b-fpgm knows only "
            "--target.\nGive one of them."
        )
    step: dict[str, Any] = {"minutes": minutes, "storage": storage}
    if preset is None:
        step |= {
            "kind": "search",
            "budgets": budget,
            "trials": trials,
            "sampler": sampler,
            "importance": {"kind": importance},
            "variables": int(variables) if variables.isdigit() else variables,
            "max_rate": max_rate,
            "multiple_of": multiple_of,
            "front": front,
            "proxy": {"repair": repair},
            "finals": {"trained": trained, "verified": verified, "on": verify_on},
        }
    else:
        step |= _bfpgm(model, trials, target, faithful=faithful)
    said = "-".join(budget or [f"b-fpgm-{target:g}"])
    name = re.sub(r"[^A-Za-z0-9._]+", "-", f"search-{Path(model).stem}-{said}").strip("-")
    _carry_out(name, model, source_of(data), step, run, out, seed, device, workers, as_json=json)


def _bfpgm(model: str, trials: int, target: float, *, faithful: bool) -> dict[str, Any]:
    """The published search: one evaluation, 6 % of the rest at random, then guided ones."""
    from slimface.compress.search.bfpgm import Defects

    defects = Defects() if faithful else Defects.none()
    random = max(round(0.06 * (trials - 1)), 1)
    return {
        "kind": "b_fpgm",
        "target": target,
        "groups": "extd" if Path(model).stem.startswith("extd") else "eresfd-script",
        "defects": defects.model_dump(),
        "random": random,
        "guided": max(trials - 1 - random, 0),
    }


def _carry_out(
    name: str,
    model: str,
    source: Any,
    step: dict[str, Any],
    run: Path | None,
    out: Path | None,
    seed: int,
    device: str,
    workers: int,
    *,
    as_json: bool,
) -> None:
    from slimface.compress.search.step import Search
    from slimface.files import make_folder
    from slimface.model.checkpoint import save
    from slimface.recipe.recipe import Recipe
    from slimface.recipe.start import start
    from slimface.step import Context

    recipe = Recipe.parse(
        {"name": name, "model": model, "source": source, "seed": seed, "steps": [step]},
        where="the command",
    )
    folder = run or Path("runs") / name
    make_folder(folder, "Choose another place with --run DIR.")
    detector, provenance = start(recipe)
    context = Context(
        folder=folder,
        source=recipe.source,
        seed=seed,
        device=device,
        workers=workers,
        track=_track,
    )
    wanted = recipe.steps[0]
    path = out or folder / "best.safetensors"
    made = provenance.model_copy(update={"recipe": name, "seed": seed})
    if isinstance(wanted, Search):
        finding, best = wanted.find(detector, context)
        save(best, path, provenance=made, metrics=[finding.model_dump(mode="json")])
        _tell(finding, folder, path, as_json=as_json)
    else:
        records = folder / "records.jsonl"
        records.unlink(missing_ok=True)
        save(wanted(detector, context), path, provenance=made)
        _tell_rates(records, path, as_json=as_json)


def _tell(finding: "Finding", folder: Path, path: Path, *, as_json: bool) -> None:
    """Write what was found beside the study, and print it."""
    from slimface.files import write_text
    from slimface.report.search import write_search_page

    write_text(folder / "search.json", finding.model_dump_json(indent=1) + "\n")
    write_search_page(finding, folder / "search.html")
    if as_json:
        print_json(
            {"model": str(path), "page": str(folder / "search.html")}
            | finding.model_dump(mode="json")
        )
        return
    rates = [[name, f"{100 * rate:.1f} %"] for name, rate in finding.best.rates.items()]
    print_table(f"{finding.model}: rates of the best candidate", ["layers", "removed"], rates)
    rows = []
    for one in (finding.finalists or (finding.best,))[:_SHOWN]:
        files = one.measured or (None,) * len(one.costs)
        costs = [
            f"{cost:,.6g} (-{100 * (1 - cost / before):.1f} %)"
            + ("" if file is None else f", file {file:,.6g}")
            for cost, before, file in zip(one.costs, finding.before, files, strict=True)
        ]
        trained = "" if one.trained_loss is None else f"{one.trained_loss:.4f}"
        scored = "" if one.score is None else f"{100 * one.score:.2f}"
        rows.append([one.number, f"{one.loss:.4f}", trained, scored, *costs])
    print_table(
        "Finalists, best first",
        [
            "candidate",
            "loss",
            "after training",
            finding.scored_by,
            *(one.unit for one in finding.budgets),
        ],
        rows,
        caption=f"{len(finding.losses):,} candidates; decided by {finding.decided_by}. The whole "
        f"model's loss is {finding.parent_loss:.4f}. Scores are of held-out training pictures, or "
        "of the validation split if that was asked for: compare them within this search only.",
    )
    diary.print(f"Model: {path}\nPage:  {folder / 'search.html'}")


def _tell_rates(records: Path, path: Path, *, as_json: bool) -> None:
    from json import loads

    record = loads(records.read_text(encoding="utf-8").splitlines()[-1])["record"]
    if as_json:
        print_json({"model": str(path), **record})
        return
    print_table(
        f"B-FPGM: {record['evaluations']} evaluations, {record['lost']} of them lost",
        ["group", "rate"],
        [[name, f"{100 * rate:.1f} %"] for name, rate in record["rates"].items()],
        caption=f"value {record['value']:.4f}, zeros {100 * record['zeros']:.2f} %",
    )
    diary.print(f"Model: {path}")


def _track(items: Iterable[Any], description: str, *, total: int | None = None) -> Iterator[Any]:
    """A bar that also says how good the best candidate so far is."""
    best = math.inf
    with progress_bar() as bars:
        task = bars.add_task(description, total=total)
        for item in items:
            best = min(best, getattr(item, "loss", math.inf))
            said = f"{description}, best {best:.4f}" if math.isfinite(best) else description
            bars.update(task, advance=1, description=said)
            yield item
