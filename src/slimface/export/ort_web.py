"""ONNX Runtime Web: the two files a page needs, out of its npm package.

The package is fetched by the npm client, once, into the folder of what is kept between runs, and
counts only if it is, byte for byte, the one this version of slimface was tested with.
"""

import hashlib
import json
import logging
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from slimface.errors import CheckpointError, MissingError
from slimface.files import home

log = logging.getLogger(__name__)

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The runtime, its loader, and the WebAssembly, which has nearly all of the 14 MB."""

LICENCE = "MIT licence, Copyright (c) Microsoft Corporation"


def copy_runtime(folder: Path, package: Path | None = None) -> None:
    """Put the files of the runtime into a folder.

    Args:
        folder: Where to; it is made.
        package: The npm package as a file; None: the one kept, else fetched with npm.

    Raises:
        MissingError: It is not here and cannot be fetched.
        CheckpointError: It is another one.
    """
    package = package or _kept()
    try:
        content = package.read_bytes()
    except OSError as error:
        raise MissingError(
            f"{package}: the package of ONNX Runtime Web cannot be read ({error.strerror}).\n"
            f"Fetch it with: npm pack onnxruntime-web@{VERSION}"
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise CheckpointError(
            f"{package} is not onnxruntime-web {VERSION} as published: its SHA-256 differs.\n"
            f"Fetch it with: npm pack onnxruntime-web@{VERSION}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for name in FILES:
            # Only files named here are taken, so no path in the archive is trusted.
            stream = archive.extractfile(f"package/dist/{name}")
            assert stream is not None, f"the package proved by its digest has {name}"
            (folder / name).write_bytes(stream.read())
    about = {"name": "onnxruntime-web", "version": VERSION, "licence": LICENCE}
    (folder / "package.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _kept() -> Path:
    kept = home() / "onnxruntime-web" / PACKAGE
    if kept.is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    log.info("fetching onnxruntime-web %s with npm", VERSION)
    advice = (
        f"Where there is a network: npm pack onnxruntime-web@{VERSION}, and copy the file to {kept}"
    )
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        npm = shutil.which("npm")
        if npm is None:
            raise MissingError(
                f"a page needs onnxruntime-web {VERSION}; there is no npm to fetch it.\n{advice}"
            )
        done = subprocess.run(
            [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"],
            cwd=scratch,
            check=False,
            capture_output=True,
            text=True,
        )
        fetched = Path(scratch) / PACKAGE
        if done.returncode or not fetched.is_file():
            last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise MissingError(f"npm could not fetch onnxruntime-web {VERSION}: {last}\n{advice}")
        fetched.replace(kept)
    return kept
