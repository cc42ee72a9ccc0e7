"""Cost: what a step takes of the machine, and what a model takes of its device."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from slimface.bench.worker import peak_memory
from slimface.core.spec import CascadeSpec, ClassifierSpec
from slimface.core.spent import Footprint, Spent
from slimface.files import write_text
from slimface.model.network import Network
from slimface.model.profile import profile

SIZE_PX = (480, 640)
"""Height and width of the picture that MACs are counted for, where the model takes any."""

WATTS = "SLIMFACE_WATTS_PER_CORE"
ASSUMED_WATTS = 10.0
"""Of a busy core, where nothing is measured and nobody says better: that of a server's processor
of 200 W with 20 cores."""

LOOK_SECONDS = 0.5
NOTE_SECONDS = 10.0

_POWERCAP = Path("/sys/class/powercap")
_RAPL = "intel-rapl:[0-9]*"


def footprint(network: Network) -> Footprint:
    """Count the parameters and MACs of a network for a usual input."""
    height, width = usual_px(network)
    counted = profile(network, height, width)
    return Footprint(
        parameters=counted.parameters, macs=counted.macs, height_px=height, width_px=width
    )


def usual_px(network: Network) -> tuple[int, int]:
    """Return height and width of the input that MACs are counted for."""
    if isinstance(network.spec, CascadeSpec):
        # Its nets see crops, so that it has no cost for a picture of a size.
        return network.trace_size
    if isinstance(network.spec, ClassifierSpec):
        return network.spec.preprocess.height_px, network.spec.preprocess.width_px
    return SIZE_PX


class Meter:
    """Measures what happens inside of a ``with``: time, processor, memory, energy.

    What is measured is noted in a file every few seconds, and added to what the file says of
    earlier attempts, so that a step that was killed and went on has its whole cost.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = _read(path)
        self._final: Spent | None = None
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look_now_and_then, daemon=True)

    def __enter__(self) -> Self:
        self._own_peak = _reset_peak()
        self._started, self._processor = time.monotonic(), processor_seconds()
        self._together = 0
        self._counter = _Counter()
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watch.join()
        self._final = self._now()
        write_text(self.path, self._final.model_dump_json())

    def spent(self) -> Spent:
        """Return what all attempts have taken, until the end of this one or until now."""
        return self._final or self._now()

    def _now(self) -> Spent:
        seconds = time.monotonic() - self._started
        processor = max(0.0, processor_seconds() - self._processor)
        joules, how = self._counter.joules(), "RAPL: all that the processor did meanwhile"
        if joules is None:
            watts = watts_per_core()
            joules, how = processor * watts, f"processor time at {watts:g} W a core, not measured"
        before = self._before
        return Spent(
            seconds=round(before.seconds + seconds, 2),
            processor_seconds=round(before.processor_seconds + processor, 2),
            peak_bytes=max(before.peak_bytes, peak_memory(), self._together),
            peak_is_own=self._own_peak and before.peak_is_own,
            joules=round(before.joules + joules, 1),
            energy=how,
            attempts=before.attempts + 1,
        )

    def _look_now_and_then(self) -> None:
        noted = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            children = sum(_resident(pid) for pid in _descendants())
            if children:
                self._together = max(self._together, children + _resident(os.getpid()))
            self._counter.look()
            if time.monotonic() - noted > NOTE_SECONDS:
                write_text(self.path, self._now().model_dump_json())
                noted = time.monotonic()


def watts_per_core() -> float:
    """Return what a busy core is taken to need, from ``SLIMFACE_WATTS_PER_CORE`` or assumed."""
    try:
        watts = float(os.environ.get(WATTS, ""))
    except ValueError:
        return ASSUMED_WATTS
    return watts if 0 < watts < float("inf") else ASSUMED_WATTS


def processor_seconds() -> float:
    """Return the processor time of this process and of all that it has started, since they began.

    Those that still run count where the system says how they fare (Linux).
    """
    times = os.times()
    ended = times.user + times.system + times.children_user + times.children_system
    return ended + sum(_processor_of(pid) for pid in _descendants())


def _read(path: Path) -> Spent:
    """What earlier attempts have taken; a note that was cut off does not count."""
    try:
        return Spent.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return Spent()


def _reset_peak() -> bool:
    """Forget the peak of this process' memory, if the system can; whether it could."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _descendants() -> Iterator[int]:
    """The processes that this one has started, and those they have."""
    todo = [os.getpid()]
    while todo:
        for path in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                found = [int(pid) for pid in path.read_text(encoding="ascii").split()]
            except OSError:
                continue
            todo += found
            yield from found


def _resident(pid: int) -> int:
    """Bytes that a process holds, those that it shares counted by its share; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        return int(text.partition("\nPss:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def _processor_of(pid: int) -> float:
    try:
        # The name of the program, in brackets, may hold anything.
        cells = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return sum(int(cell) for cell in cells[11:15]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


class _Counter:
    """The energy that the processor itself counts, where it may be read (Linux, RAPL)."""

    def __init__(self) -> None:
        self._last = self._read()
        self._sum = 0

    def look(self) -> None:
        """Add what has been used since the last look; a counter that began anew has a limit."""
        for place, now in self._read().items():
            gone = now - self._last.get(place, now)
            self._sum += gone if gone >= 0 else gone + _limit(place)
            self._last[place] = now

    def joules(self) -> float | None:
        """Return what has been used, or None where nothing can be read."""
        if not self._last:
            return None
        self.look()
        return self._sum / 1e6

    def _read(self) -> dict[Path, int]:
        found = {}
        # intel-rapl:0 is a processor, intel-rapl:0:1 a part of it.
        for place in (one for one in _POWERCAP.glob(_RAPL) if one.name.count(":") == 1):
            try:
                found[place] = int((place / "energy_uj").read_text(encoding="ascii"))
            except (OSError, ValueError):
                continue
        return found


def _limit(place: Path) -> int:
    try:
        return int((place / "max_energy_range_uj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def summary(spent: Spent, before: Footprint, after: Footprint) -> dict[str, Any]:
    """Return what the records say about the cost of a step."""
    return {
        "seconds": spent.seconds,
        "processor_seconds": spent.processor_seconds,
        "spent": spent.model_dump(mode="json"),
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json"),
    }
