"""How soon the browser page has found the faces of its sample, from the moment it is asked for.

    python benchmarks/page.py --scratch /tmp/page eresfd retinaface-mobilenet025

Exports each model as a page, serves it from this machine, and opens it in headless Chromium: every
time in a new profile, so that nothing is cached, WebAssembly's code included. The bar is 2 s.
Neighbours on the machine stretch these times; the browser's processor time stands beside them.
"""

import argparse
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser, sync_playwright

SETTLED = "main[data-state=ready], main[data-state=failed]"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["eresfd"])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--times", type=int, default=9)
    asked = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    slimface = Path(sys.executable).with_name("slimface")
    for model in asked.models:
        folder = asked.scratch / model
        if not folder.is_dir():
            words = (slimface, "-q", "export", model, "--format", "web", "--out", folder)
            subprocess.run([str(word) for word in words], check=True)
        with served(folder) as address, sync_playwright() as driver:
            runs = []
            for _ in range(asked.times):
                browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
                runs.append(opened(browser, address))
                browser.close()
        usable, content, spent = np.array(runs).T
        print(
            f"{model}: the sample's faces {np.median(usable):.2f} s after asking for the address "
            f"(fastest {usable.min():.2f}, slowest {usable.max():.2f}), the page itself after "
            f"{np.median(content):.2f} s; processor {np.median(spent):.2f} s; "
            f"{asked.times} cold starts"
        )
    print(f"load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")


def opened(browser: Browser, address: str) -> tuple[float, float, float]:
    """Return the seconds to the sample's faces and to the page, and the processor's in between."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    before = processor_seconds()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(SETTLED, timeout=120_000)
    spent = processor_seconds() - before
    if page.get_attribute("main", "data-state") != "ready":
        raise SystemExit(page.text_content("#error"))
    usable = float(page.get_attribute("main", "data-ready-after") or "nan") / 1e3
    timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    return usable, page.evaluate(timing) / 1e3, spent


def processor_seconds() -> float:
    """Processor time of all processes of the browser."""
    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps no diary."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder from this machine; give its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


if __name__ == "__main__":
    main()
