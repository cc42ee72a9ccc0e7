"""How well cheap signs tell, before any training, which pruned detector will be better after it.

Cuts some candidates of the search on the surface of one budget, takes every proxy of each, trains
each for a while and scores it on training pictures that are held out. Prints Spearman's rank
correlation of every proxy with the average precision after the training.

    python benchmarks/search_proxy.py ../shared/data/wider --candidates 8
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from slimface.compress.search.finalists import Arena, Finals
from slimface.compress.search.proxy import Proxy, ShortTraining
from slimface.compress.search.step import Search
from slimface.data.source import WiderFace
from slimface.data.transforms import S3fdAugment
from slimface.model import zoo
from slimface.step import Context

PROXIES = {
    "truth, 64 + 128 crops": Proxy(calibration=64, held_out=128),
    "truth, 32 + 64 crops": Proxy(),
    "truth, 256 px": Proxy(size_px=256),
    "truth, augmented crops": Proxy(augment=S3fdAugment()),
    "parent, 32 + 64 crops": Proxy(against="parent"),
    "truth, norms as they were": Proxy(calibration=0),
    "truth, reconstructed": Proxy(repair="reconstruct"),
    "parent, reconstructed": Proxy(repair="reconstruct", against="parent"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wider", type=Path)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--budget", default="-40% macs")
    parser.add_argument("--longest", type=int, default=640)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        context = Context(folder=Path(folder), source=WiderFace(root=str(arguments.wider)))
        detector = zoo.load("eresfd")
        training = ShortTraining(pictures=arguments.pictures)
        finals = Finals(training=training, longest_px=arguments.longest)
        search = Search(budgets=(arguments.budget,), finals=finals)
        ground = search.ground(detector, context)
        benches = {name: proxy.bench(detector, context) for name, proxy in PROXIES.items()}
        crops = training.crops(ground.bench, context)
        arena = Arena(finals, ground, context)
        (Path(folder) / "finalists").mkdir()

        rng = np.random.default_rng(0)
        starts = [ground.space.rates(start) for start in search.proposals(ground)]
        while len(starts) < arguments.candidates:
            starts.append(
                ground.space.rates(
                    dict(
                        zip(
                            ground.space.names,
                            rng.random(len(ground.space.names)).tolist(),
                            strict=True,
                        )
                    )
                )
            )
        rows = []
        for rates in starts[: arguments.candidates]:
            widths = ground.surface.place(rates)
            row = {}
            for name, bench in benches.items():
                here, started = replace(ground, bench=bench), time.process_time()
                row[name] = here.judge(widths), time.process_time() - started
            cut = ground.mended(widths)
            before = arena.precision(cut)
            training(cut, crops, ground.bench)
            row["loss after training"] = ground.bench.loss(cut), 0.0
            row["AP before training"] = -before, 0.0
            row["AP"] = -arena.precision(cut), 0.0
            rows.append(row)
            print(
                json.dumps({name: round(value, 4) for name, (value, _) in row.items()}), flush=True
            )

    truth = [row["AP"][0] for row in rows]
    print(f"{'proxy':28} {'rank correlation':>16} {'processor s':>12}")
    for name in rows[0]:
        if name != "AP":
            values = [row[name][0] for row in rows]
            seconds = float(np.median([row[name][1] for row in rows]))
            print(f"{name:28} {spearmanr(values, truth).statistic:16.2f} {seconds:12.2f}")


if __name__ == "__main__":
    main()
