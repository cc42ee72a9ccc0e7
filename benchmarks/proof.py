"""The heavy proofs, one after the other: what `make proof` runs, with results for docs/ledger.md.

    make proof                      everything that the data at hand allow
    python benchmarks/proof.py evaluator postprocess

Needs SLIMFACE_WIDER and SLIMFACE_WEIGHTS (or ../shared) for most of them; says what it leaves out.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SLIMFACE = [str(Path(sys.executable).with_name("slimface"))]
PYTHON = [sys.executable]


def commands(wider: Path, scratch: Path) -> dict[str, list[list[str]]]:
    """Name of a proof -> its commands."""
    onnx = str(scratch / "eresfd.onnx")
    pictures = str(wider / "WIDER_val" / "images")
    photo = str(next(Path(pictures).rglob("*.jpg"), ""))
    base = ["--scratch", str(scratch / "base"), "--model", onnx, "--picture", photo]
    return {
        "accuracy": [
            [*SLIMFACE, "evaluate", "eresfd", "--threads", "1"],
            [*SLIMFACE, "export", "eresfd", "--out", onnx, "--pictures", pictures],
            [*SLIMFACE, "evaluate", onnx, "--threads", "1"],
        ],
        "evaluator": [[*PYTHON, "benchmarks/evaluator.py", "--loops"]],
        "augment": [[*PYTHON, "benchmarks/augment.py", str(wider)]],
        "postprocess": [
            [*SLIMFACE, "export", "eresfd", "--out", onnx],
            [*PYTHON, "benchmarks/postprocess.py", "--pictures", pictures, "--model", onnx],
        ],
        "published-way": [[*PYTHON, "benchmarks/published_way.py", "--pictures", pictures]],
        "demo": [[*SLIMFACE, "demo", "--out", str(scratch / "demo")]],
        "zoo-grid": [[*PYTHON, "benchmarks/zoo_grid.py"]],
        "short-training": [
            [*PYTHON, "benchmarks/short_training.py", "--out", str(scratch / "short")]
        ],
        "base-install": [
            [*SLIMFACE, "export", "eresfd", "--out", onnx],
            [*PYTHON, "benchmarks/base_install.py", *base],
        ],
        "page": [[*PYTHON, "benchmarks/page.py", "--scratch", str(scratch / "page")]],
        "runners": [[*PYTHON, "benchmarks/runners.py", "--scratch", str(scratch / "runners")]],
        "zoo-accuracy": [
            [*SLIMFACE, "evaluate", name, "--threads", "1"]
            for name in ("extd-32", "extd-48", "extd-64")
        ],
        "eresfd-oneshot-30": [
            [*SLIMFACE, "run", "eresfd-oneshot-30", "--out", str(scratch / "eresfd-oneshot-30")]
        ],
    }


def main() -> int:
    """Run the proofs named, or all; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which proofs; none: all")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "proof")
    chosen = parser.parse_args()
    wider = Path(os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider")))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen.scratch.mkdir(parents=True, exist_ok=True)
    proofs = commands(wider, chosen.scratch)
    unknown = set(chosen.names) - set(proofs)
    if unknown:
        parser.error(
            f"no proof is called {', '.join(sorted(unknown))}; there are {', '.join(proofs)}"
        )
    failed = 0
    for name in chosen.names or proofs:
        if not wider.is_dir() and name != "demo":
            print(f"{name}: left out, no WIDER FACE at {wider} (set SLIMFACE_WIDER)")
            continue
        for command in proofs[name]:
            print(f"\n$ {' '.join(command)}", flush=True)
            started = time.monotonic()
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
            print(f"{name}: exit code {code}, {time.monotonic() - started:.0f} s", flush=True)
            failed += code != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
