"""Every shipped recipe, rehearsed on real pictures: does each step work, and how long does it take?

    python benchmarks/recipes_short.py                          all of them
    python benchmarks/recipes_short.py eresfd-fpgm-30 mtcnn-taylor-50

Needs SLIMFACE_WIDER and SLIMFACE_WEIGHTS (or ../shared).
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from slimface.model.checkpoint import load_checkpoint
from slimface.recipe.rehearsal import rehearsal
from slimface.recipe.run import run
from slimface.recipe.shipped import open_recipe, shipped_recipes

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main() -> int:
    """Run them one after the other; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which recipes; none: all")
    chosen = parser.parse_args()
    os.environ.setdefault("SLIMFACE_WIDER", str(SHARED / "data" / "wider"))
    os.environ.setdefault("SLIMFACE_WEIGHTS", str(SHARED / "weights"))
    failed = 0
    print("| recipe | parameters | steps | processor s |\n|---|---|---|---|")
    for name in chosen.names or shipped_recipes():
        started = time.process_time()
        try:
            with tempfile.TemporaryDirectory() as folder:
                done = run(rehearsal(open_recipe(Path(name))), Path(folder), workers=0)
                model = load_checkpoint(Path(folder) / "model.safetensors").detector
                count = sum(parameter.numel() for parameter in model.parameters())
            said = f"{count:,} | {len(done)}"
        except Exception as error:  # A benchmark goes on, and says what broke.
            failed += 1
            said = f"{type(error).__name__}: {str(error).splitlines()[0]} | "
        print(f"| {name} | {said} | {time.process_time() - started:.1f} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
