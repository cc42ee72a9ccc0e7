"""Timing: what the benchmark records of a run say, one line a configuration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimface.report.run import Entry, mapping, number, sequence

PARTS = ("pre", "network", "post")
"""Preprocessing, network, decoding and suppression: what one picture waits for, in order."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a picture of one configuration."""

    runtime: str
    threads: int
    height_px: int
    width_px: int
    median_ms: float
    p10_ms: float | None
    p90_ms: float | None
    parts_ms: Mapping[str, float]
    """Medians of ``PARTS``; empty where they were not told apart."""

    file_bytes: float | None
    peak_bytes: float | None

    @property
    def place(self) -> tuple[str, int, int, int]:
        """What has to be equal for two timings to be compared."""
        return self.runtime, self.threads, self.height_px, self.width_px

    @property
    def title(self) -> str:
        """The configuration in words."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.runtime}, {threads}, {self.width_px} × {self.height_px}"


def timings(entries: Sequence[Entry]) -> list[Timing]:
    """Return the timings in benchmark records."""
    return [timing for entry in entries for timing in _read(entry.record)]


def pairs(
    before: Sequence[Timing], after: Sequence[Timing]
) -> list[tuple[Timing | None, Timing | None]]:
    """Return timings of equal configurations side by side, in the order of ``after``."""
    first = {timing.place: timing for timing in before}
    last = {timing.place: timing for timing in after}
    return [(first.get(place), last.get(place)) for place in {**last, **first}]


def headline(
    couples: Sequence[tuple[Timing | None, Timing | None]],
) -> tuple[Timing | None, Timing | None]:
    """Return the pair to speak of first: one with both sides, in the runtime that ships."""

    def rank(couple: tuple[Timing | None, Timing | None]) -> tuple[bool, bool, int]:
        timing = couple[1] or couple[0]
        assert timing is not None
        return None in couple, timing.runtime.startswith("torch"), timing.threads

    return min(couples, key=rank, default=(None, None))


def _read(record: Mapping[str, Any]) -> Iterator[Timing]:
    rows = sequence(record.get("rows"))
    for row in rows or [record]:
        row = mapping(row)
        median = number(row.get("median_ms"))
        if median is None:
            continue
        parts = {part: number(row.get(f"{part}_ms")) for part in PARTS}
        yield Timing(
            runtime=str(row.get("runtime", "unknown runtime")),
            threads=int(number(row.get("threads")) or 1),
            height_px=int(number(row.get("height_px")) or 0),
            width_px=int(number(row.get("width_px")) or 0),
            median_ms=median,
            p10_ms=number(row.get("p10_ms")),
            p90_ms=number(row.get("p90_ms")),
            parts_ms={part: value for part, value in parts.items() if value is not None},
            file_bytes=number(row.get("file_bytes") or record.get("file_bytes")),
            peak_bytes=number(row.get("peak_bytes") or record.get("peak_bytes")),
        )
