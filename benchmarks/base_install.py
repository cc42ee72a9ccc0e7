"""What `pip install slimface` brings in an empty environment: size, start, first detection.

    python benchmarks/base_install.py --scratch /tmp/base --model eresfd.onnx --picture photo.jpg

Clones the last commit, installs the clone (not editable) into a fresh virtual environment, and runs
it there. Bars: no torch, 250 MB, 0.4 s to import, 1.5 s to the first detection. Times are medians,
of the wall and, since other work on the machine stretches those, of the processor.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")

IMPORT = "import slimface.deploy.pipeline, slimface.deploy.runtimes"
DETECT = """
import sys
from slimface import load
found = load(sys.argv[1], threads=1).detect(sys.argv[2])
"""
TIMED = """
import json, time
start, used = time.perf_counter(), time.process_time()
{code}
spent = [time.perf_counter() - start, time.process_time() - used]
import sys
print(json.dumps([*spent, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def main() -> int:
    """Print what was measured; return how many bars were missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="an exported file")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--extras", default="", help="such as video; none: the base")
    parser.add_argument("--times", type=int, default=7)
    asked = parser.parse_args()
    python = installed(asked.scratch, asked.extras)
    size = measure_size(python)
    words = (asked.model.resolve(), asked.picture.resolve())
    alone = measured(python, IMPORT, (), asked.times)
    whole = measured(python, DETECT, words, asked.times)
    command = measured_command(python.with_name("slimface"), words, asked.times)
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} of {os.cpu_count()} cores; medians of {asked.times}")
    heavy = sorted({"torch", "cv2", "onnx", "scipy"} & set(whole[2]))
    print(f"of torch, OpenCV, onnx, scipy a detection loads: {', '.join(heavy) or 'none'}")
    bars = [
        ("installed, MB", size, 250.0),
        ("import of slimface.deploy, s of the processor", alone[1], 0.4),
        ("import, open the model, decode and detect, s of the processor", whole[1], 1.5),
        (
            "slimface detect from the start of Python to its end, s of the processor",
            command[1],
            1.5,
        ),
    ]
    for (what, value, bar), wall in zip(bars, (None, alone, whole, command), strict=True):
        beside = f" ({wall[0]:.2f} s of the wall)" if wall else ""
        print(f"{what}: {value:.2f}{beside}; bar {bar:g}: {'met' if value <= bar else 'MISSED'}")
    return sum(value > bar for _, value, bar in bars) + ("torch" in heavy)


def installed(scratch: Path, extras: str) -> Path:
    """Install the last commit; return the Python of the new environment."""
    clone, place = scratch / "clone", scratch / f"env-{extras or 'base'}"
    for old in (clone, place):
        shutil.rmtree(old, ignore_errors=True)
    run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone)
    run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    start = time.perf_counter()
    named = f"{clone}[{extras}]" if extras else str(clone)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", named)
    print(f"installed in {time.perf_counter() - start:.0f} s")
    return python


def measure_size(python: Path) -> float:
    """Return the MB on the disk, without pip and setuptools; print the largest parts."""
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    sizes = {entry.name: taken(entry) for entry in packages.iterdir()}
    tools = sum(size for name, size in sizes.items() if name.startswith(TOOLS))
    whole = sum(sizes.values())
    largest = sorted(sizes, key=lambda name: -sizes[name])[:8]
    print("largest: " + ", ".join(f"{name} {sizes[name] / 2**20:.0f}" for name in largest))
    print(f"site-packages {whole / 2**20:.0f} MB, of that pip and setuptools {tools / 2**20:.0f}")
    assert "torch" not in sizes
    return (whole - tools) / 2**20


def taken(entry: Path) -> int:
    """Bytes on the disk of a file or of all files in a folder."""
    files = [entry, *entry.rglob("*")] if entry.is_dir() else [entry]
    return sum(file.lstat().st_blocks * 512 for file in files)


def measured(
    python: Path, code: str, words: tuple[Path, ...], times: int
) -> tuple[float, float, list[str]]:
    """Return the wall and processor seconds of some code in fresh processes, and its modules."""
    found = [
        json.loads(run(python, "-I", "-c", TIMED.format(code=code), *words).stdout)
        for _ in range(times)
    ]
    wall, processor = np.median([row[:2] for row in found], axis=0)
    return float(wall), float(processor), found[0][2]


def measured_command(slimface: Path, words: tuple[Path, ...], times: int) -> tuple[float, float]:
    """Return the wall and processor seconds of ``slimface detect``."""
    spent = []
    for _ in range(times):
        start, before = time.perf_counter(), os.times()
        run(slimface, "detect", words[1], "--model", words[0], "--threads", "1")
        after = os.times()
        used = after.children_user - before.children_user
        used += after.children_system - before.children_system
        spent.append((time.perf_counter() - start, used))
    wall, processor = np.median(spent, axis=0)
    return float(wall), float(processor)


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; what it says is shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
