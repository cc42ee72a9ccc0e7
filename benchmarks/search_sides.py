"""The search beside B-FPGM's and uniform FPGM: equal time to search, equal budget, equal training.

Ours draws for ``--minutes`` by the clock and then trains and scores its finalists; B-FPGM then has
as long as all that took. Each side's rates are scaled to the same budget, the cut is reconstructed
and trained in the same way on the 1,500 pictures, with the whole network as the teacher, and the
validation pictures are scored. At the end the files of all sides are timed side by side. Finished
parts are not repeated.

    python benchmarks/search_sides.py ../shared/data/wider --minutes 10 --out runs/sides

``--budget`` may be of MACs (``-40% macs``).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from slimface.compress.place import Place
from slimface.compress.prune.allocate import PerGroup, Uniform
from slimface.compress.prune.step import Prune
from slimface.compress.repair.kinds import Reconstruct
from slimface.compress.search.bfpgm import BFpgm, Defects
from slimface.compress.search.finalists import Finals
from slimface.compress.search.proxy import Proxy, ShortTraining
from slimface.compress.search.step import Search
from slimface.core.budget import parse_budget
from slimface.data.source import WiderFace
from slimface.evaluate.step import Evaluate
from slimface.model import zoo
from slimface.model.checkpoint import load_checkpoint, save
from slimface.model.profile import profile
from slimface.step import Context
from slimface.train.distill import Distill
from slimface.train.schedule import Schedule
from slimface.train.step import Train

SIDES = ("search", "b-fpgm", "uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wider", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="-30% ms@onnxruntime:1t:640x480")
    parser.add_argument("--minutes", type=float, default=12, help="for our draws")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--trained", type=int, default=8)
    parser.add_argument("--verified", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    arguments = parser.parse_args()

    rows = {side: carry_out(side, arguments) for side in arguments.sides}
    whole_file = Place().export(zoo.load("eresfd").eval(), arguments.out / "whole")
    files = [whole_file, *(arguments.out / side / "file" / "model.onnx" for side in rows)]
    whole, *times = Place().network_ms(files, rounds=40)
    print(f"Whole: {whole:.2f} ms")
    print("| side | MACs | parameters | ms | easy / medium / hard | search, min, processor min |")
    print("|---|---|---|---|---|---|")
    for (side, row), ms in zip(rows.items(), times, strict=True):
        found = " / ".join(f"{100 * row[name]:.1f}" for name in ("easy", "medium", "hard"))
        print(
            f"| {side} | {row['macs'] / 1e6:.1f} M | {row['parameters']:,} "
            f"| {ms:.2f} ({100 * (ms / whole - 1):+.1f} %) | {found} "
            f"| {row['seconds'][0] / 60:.1f}, {row['seconds'][1] / 60:.1f} |"
        )


def carry_out(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search, cut, train and score one side; or read what that came to."""
    folder = arguments.out / side
    done = folder / "row.json"
    if done.exists():
        return json.loads(done.read_text())
    source = WiderFace(root=str(arguments.wider))
    cut = folder / "cut.safetensors"
    if not cut.exists():
        context = Context(folder=made(folder / "search"), source=source)
        clocks = time.monotonic(), time.process_time()
        save(SEARCHES[side](arguments, context), cut)
        taken = time.monotonic() - clocks[0], time.process_time() - clocks[1]
        (folder / "taken.json").write_text(json.dumps(taken))
    training = Context(folder=made(folder / "training"), source=source)
    teacher = Distill(teacher="eresfd", weight=0.7)
    how = schedule(arguments.epochs, warmup_epochs=0.1, ema=0.998)
    learn = Train(schedule=how, criterion=teacher, size_px=arguments.size)
    trained = learn(load_checkpoint(cut).detector, training)
    Place().export(trained, folder / "file")
    scoring = Context(folder=made(folder / "scoring"), source=source)
    Evaluate()(trained, scoring)
    last = (scoring.folder / "records.jsonl").read_text().splitlines()[-1]
    subsets = json.loads(last)["record"]["subsets"]
    counted = profile(trained, 480, 640)
    row = {
        "macs": counted.macs,
        "parameters": counted.parameters,
        "seconds": json.loads((folder / "taken.json").read_text()),
        **{one["name"]: one["average_precision"] for one in subsets},
    }
    done.write_text(json.dumps(row))
    return row


def schedule(epochs: int, **more: float) -> Schedule:
    """How reconstructed networks are trained: their norms fit as they are."""
    return Schedule(epochs=epochs, batch_size=16, learning_rate=1e-3, frozen_norms=True, **more)


def cut_by(allocator: Any, detector: Any, context: Context) -> Any:
    """The cut that all sides share: FPGM's channels go, and what is left is reconstructed."""
    return Prune(allocator=allocator, repair=Reconstruct())(detector, context)


def searched(arguments: argparse.Namespace, context: Context) -> Any:
    """Ours: cut at the widths found, without the weights of its short training."""
    search = Search(
        budgets=(arguments.budget,),
        trials=arguments.trials,
        minutes=arguments.minutes,
        proxy=Proxy(repair="reconstruct", calibration=64),
        finals=Finals(
            trained=arguments.trained,
            verified=arguments.verified,
            training=ShortTraining(schedule=schedule(epochs=1)),
        ),
    )
    detector = zoo.load("eresfd").eval()
    finding, _ = search.find(detector, context)
    rates = {
        name: 1 - width / size
        for name, width, size in zip(
            finding.groups, finding.best.widths, finding.sizes, strict=True
        )
    }
    (context.folder / "finding.json").write_text(finding.model_dump_json())
    # Names of groups are names of layers, each of which fits itself. The widths meet the budget as
    # they are: the finalists' files were measured.
    named = {name: (name,) for name in rates}
    return cut_by(PerGroup(rates=rates, groups=named), detector, context)


def published(arguments: argparse.Namespace, context: Context) -> Any:
    """B-FPGM as published, its rates scaled to the budget."""
    taken = arguments.out / "search" / "taken.json"
    minutes = json.loads(taken.read_text())[0] / 60 if taken.exists() else arguments.minutes
    search = BFpgm(target=0.6, minutes=minutes, defects=Defects(), size_px=arguments.size)
    detector = zoo.load("eresfd").eval()
    rates, _, counts = search.find(detector, context)
    (context.folder / "rates.json").write_text(json.dumps({"rates": rates, **counts}))
    budget = parse_budget(arguments.budget)
    allocator = PerGroup(rates=rates, groups="eresfd-script", budget=budget)
    return cut_by(allocator, detector, context)


def uniform(arguments: argparse.Namespace, context: Context) -> Any:
    """FPGM at one rate."""
    detector = zoo.load("eresfd").eval()
    return cut_by(Uniform(budget=parse_budget(arguments.budget)), detector, context)


SEARCHES = {"search": searched, "b-fpgm": published, "uniform": uniform}


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
