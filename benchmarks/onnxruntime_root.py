"""What C++ needs of ONNX Runtime, in one folder: headers of Debian, the library of the wheel.

    python benchmarks/onnxruntime_root.py [FOLDER]
    cmake -S bundle/runners/cpp -B build -DENGINE=onnxruntime -DONNXRUNTIME_ROOT=FOLDER

The wheel has no headers, and Debian 12 no package of them; a later suite has, 85 kB large. They are
fetched with apt-get and unpacked, with lists of its own: nothing is installed, nothing of the
system is touched, and no root is needed. Headers of an older release fit a newer library.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime

from slimface.errors import MissingError
from slimface.files import home

SUITE = "trixie"
SOURCE = """Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
PACKAGE = "libonnxruntime-dev"
MINUTES = 2


def kept() -> Path:
    """Return the folder where the tests look, too."""
    return home() / "onnxruntime-cpp"


def onnxruntime_root(folder: Path) -> Path:
    """Make the folder, unless it is there: ``include`` and ``lib`` as in an unpacked release.

    Raises:
        MissingError: The headers or the library cannot be had, or do not fit each other.
    """
    if not (folder / "include" / "onnxruntime_cxx_api.h").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(_headers(Path(scratch)), folder / "include", dirs_exist_ok=True)
    _link_library(folder / "lib")
    said = (folder / "include" / "onnxruntime_c_api.h").read_text()
    match = re.search(r"#define ORT_API_VERSION (\d+)", said)
    wanted, has = int(match[1]) if match else 0, int(onnxruntime.__version__.split(".")[1])
    if not 0 < wanted <= has:
        raise MissingError(
            f"{folder}: the headers are of release 1.{wanted}, the library of 1.{has}; "
            "an older library does not serve newer headers.\nDelete the folder and try again."
        )
    return folder


def _headers(scratch: Path) -> Path:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise MissingError(
            "no apt-get on this machine to fetch the headers of ONNX Runtime with.\n"
            "Unpack a release of it and name its folder in ONNXRUNTIME_ROOT."
        )
    (scratch / "lists" / "partial").mkdir(parents=True)
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
    sources = scratch / f"{SUITE}.sources"
    sources.write_text(SOURCE.format(suite=SUITE))
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/nonexistent",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-q", *(word for key in options for word in ("-o", f"{key}={options[key]}"))]
    for words in (["update"], ["download", PACKAGE]):
        done = _ran([*apt, *words], scratch)
        if done:
            raise MissingError(
                f"apt-get {words[0]} fails: {done}\n"
                "Unpack a release of ONNX Runtime and name its folder in ONNXRUNTIME_ROOT."
            )
    [package] = scratch.glob(f"{PACKAGE}*.deb")
    subprocess.run(["dpkg-deb", "-x", package, scratch / "unpacked"], check=True)
    return scratch / "unpacked" / "usr" / "include" / "onnxruntime"


def _ran(words: list[str], folder: Path) -> str:
    """Run apt-get; return its complaint, or nothing."""
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=False, timeout=60 * MINUTES
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {MINUTES} minutes"
    # An update that reaches nothing is no error to apt-get, only a warning.
    said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:", "W: Fail"))]
    return said[0] if said else "" if done.returncode == 0 else f"exit code {done.returncode}"


def _link_library(folder: Path) -> None:
    """Name the library of the wheel as linkers and loaders look for it."""
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(library)


if __name__ == "__main__":
    print(onnxruntime_root(Path(sys.argv[1]) if len(sys.argv) > 1 else kept()))
