"""Processor time and memory of a process, on Linux."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

_IDLE_SECONDS = 0.1
_LONGEST_WAIT = 300  # in units of _IDLE_SECONDS
_PROCESS_CLOCK = 2


def busy_seconds(pid: int) -> float:
    """Return the processor seconds of all its threads so far."""
    # The number that the C library's clock_getcpuclockid() gives; Python has no name for it.
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def resident_megabytes(pid: int) -> float:
    """Return its resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) / 1024


async def until_idle(pid: int) -> None:
    """Wait until the process is idle, background work included."""
    before = busy_seconds(pid)
    for _ in range(_LONGEST_WAIT):
        await asyncio.sleep(_IDLE_SECONDS)
        now = busy_seconds(pid)
        if now - before < _IDLE_SECONDS / 50:
            return
        before = now
    raise RuntimeError(f"process {pid} does not become idle")
