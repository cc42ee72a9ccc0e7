"""Kept times: what was measured on this machine, so that it is measured once.

One JSON file for each machine, version of the runtime and number of threads, in the folder
``latency`` of ``SLIMFACE_HOME``. Delete it to measure again.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slimface.bench.machine import this_machine
from slimface.files import home, write_text


class KeptTimes:
    """A file of milliseconds by text keys, in sections."""

    def __init__(self, runtime: str, threads: int) -> None:
        machine = this_machine()
        place = [machine.processor, str(machine.cores), machine.system, _features()]
        digest = hashlib.sha256("\n".join(place).encode()).hexdigest()[:12]
        name = f"{digest}-{runtime}-{version(runtime)}-{threads}t.json"
        self.path = home() / "latency" / name
        self._about = {"processor": machine.processor, "system": machine.system}

    def read(self, section: str) -> dict[str, Any]:
        """Return what is known; nothing if the file is not there or is damaged."""
        found = self._content().get(section, {})
        return found if isinstance(found, dict) else {}

    def add(self, section: str, entries: Mapping[str, Any]) -> None:
        """Keep more, besides what other processes have added meanwhile."""
        content = {"machine": self._about, **self._content()}
        content[section] = {**self.read(section), **entries}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(content))

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _features() -> str:
    """What the processor can do: clouds call very different ones by one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
