"""Importances: how long it takes to value all channels of EResFD.

    python benchmarks/importances.py

Processor time of one thread, the least and the median of many calls.
"""

import statistics
import time

import torch

from slimface.compress.prune.importance import L1, L2, Fpgm, Lamp, NormScale, importances
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.eresfd import naver


def main() -> None:
    torch.set_num_threads(1)
    detector = build(naver(), seed=0)
    groups = channel_groups(detector)
    for importance in (Fpgm(), L1(), L2(), Lamp(), NormScale()):
        times = []
        for _ in range(40):
            start = time.process_time()
            importances(detector, groups, importance)
            times.append((time.process_time() - start) * 1e3)
        print(
            f"| {importance.kind} | {min(times):.1f} ms least | {statistics.median(times):.1f} ms "
            "median |"
        )


if __name__ == "__main__":
    main()
