r"""The whole grid: every network of the zoo and six classifiers x every importance x 10 to 60 %.

    SLIMFACE_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 python benchmarks/zoo_grid.py [eresfd ...]

Each cell is pruned uniformly and held to the laws (tests/model/pruning_grid.py): removed and
silenced networks agree to 1e-4, parameters and MACs are the predicted ones to the last, and a
reload is equal bit by bit. Weights are the published ones where they are on this machine, else
random with the batch norms of a life in training. The nets of a cascade are taken one by one.
A cell that cannot be, such as the scale of batch norms in a net without any, says why. Prints a row
a network; exit code 1 if a law was broken.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("SLIMFACE_WEIGHTS", str(ROOT.parent / "shared" / "weights"))
os.environ.setdefault("SLIMFACE_OFFLINE", "1")

from slimface.compress.prune.probe import Probe  # noqa: E402
from slimface.core.faces import Faces  # noqa: E402
from slimface.data.batches import Batch  # noqa: E402
from slimface.errors import MissingError, UsageError  # noqa: E402
from slimface.model import zoo  # noqa: E402
from slimface.model.build import build  # noqa: E402
from slimface.model.cascade import net_of  # noqa: E402
from slimface.model.channels import channel_groups  # noqa: E402
from slimface.model.classifier import classifier  # noqa: E402
from slimface.model.detector import Detector  # noqa: E402
from slimface.model.mtcnn import MTCNN, NETS, Stage  # noqa: E402
from slimface.model.network import Network  # noqa: E402
from slimface.train.criterion import Loss, MultiBox  # noqa: E402
from tests.model.drawn_detector import live_in_  # noqa: E402
from tests.model.pruning_grid import IMPORTANCES, RATES, pruned  # noqa: E402

BACKBONES = (
    *("ghostnet", "mobilenetv3", "resnet50", "mobilenetv4_conv_small", "mobilenetv3_small_050"),
    *("mobilenetv2_035", "lcnet_035", "tinynet_e", "ghostnet_050", "resnet10t", "regnetx_002"),
)
CLASSIFIERS = (
    *("resnet10t", "mobilenetv4_conv_small_035", "ghostnet_050", "tinynet_e"),
    *("torchvision/mobilenet_v3_small", "torchvision/mnasnet0_5"),
)
NAMES = (
    *zoo.names(),
    "mtcnn-floor",
    *(f"retinaface:{name}" for name in BACKBONES),
    *(f"classifier:{name}" for name in CLASSIFIERS),
)


class Surprise:
    """A loss that any network has: how far its answers are from nothing."""

    def __call__(self, network: Any, raw: Any, batch: Any) -> Loss:
        parts: list[Tensor] = (
            [raw] if isinstance(raw, Tensor) else [p for p in raw if p is not None]
        )
        total = torch.stack([F.softplus(part).mean() for part in parts]).sum()
        return Loss(total, {"surprise": total.detach()})


def networks(name: str) -> Iterator[tuple[str, Network]]:
    """The network of a name, or the nets of a cascade."""
    family, _, model = name.partition(":")
    if family == "classifier":
        spec = classifier(model, ("cat", "dog", "face"))
        yield name, live_in_(build(spec, seed=0), 0)  # type: ignore[arg-type, misc]
        return
    try:
        detector = zoo.load(name)
    except MissingError:
        detector = live_in_(build(zoo.entry(name).spec, seed=0), 0)
    if isinstance(detector, MTCNN):
        for net in NETS:
            yield f"{name}.{net}", net_of(detector, net, where=name)
    else:
        yield name, detector


def probe_of(network: Network) -> Probe:
    """Noise with two faces in it, and a loss; for nets of crops and classifiers, any loss."""
    plain = isinstance(network, Detector) and not isinstance(network, Stage)
    size = (64, 64) if plain else network.trace_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    faces = [Faces.annotated([[4, 4, 30, 36], [30, 30, 60, 60]])] * 2
    return Probe([Batch(images, faces)], MultiBox() if plain else Surprise())


def row(name: str, network: Network, folder: Path) -> bool:
    """Fill the row of a network and print it; return whether all laws held."""
    started = time.process_time()
    groups = channel_groups(network)
    probe = probe_of(network)
    held, furthest, refused, broken = 0, 0.0, {}, {}
    for importance in IMPORTANCES:
        for rate in RATES:
            try:
                cell = pruned(network, groups, importance, rate, probe, folder)
            except UsageError as error:
                refused[importance.kind] = str(error).splitlines()[0]
            except Exception as error:  # every kind of failure is a broken cell, to be reported
                broken[importance.kind, rate] = f"{type(error).__name__}: {error}".splitlines()[0]
            else:
                held, furthest = held + 1, max(furthest, cell.furthest)
    cells = len(IMPORTANCES) * len(RATES)
    free = sum(group.prunable for group in groups)
    print(
        f"| {name} | {free} of {len(groups)} | {held} of {cells} | {furthest:.1e} "
        f"| {time.process_time() - started:.0f} s |",
        flush=True,
    )
    for kind, reason in refused.items():
        print(f"  refused {kind}: {reason}", flush=True)
    for (kind, rate), reason in broken.items():
        print(f"  BROKEN {kind} at {rate:.0%}: {reason}", flush=True)
    return not broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks; none: all")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | groups that can be cut | cells that hold | furthest | processor time |")
    print("|---|---|---|---|---|")
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.names or NAMES:
            for full, network in networks(name):
                fine &= row(full, network, Path(folder))
    return not fine


if __name__ == "__main__":
    sys.exit(main())
