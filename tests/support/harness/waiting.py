"""Waiting for something to become true, and no longer than needed."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST_PAUSE = 0.02  # seconds
LONGEST_PAUSE = 0.25  # seconds


def wait_until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Return as soon as the condition holds; fail with `otherwise` if it does not in time.

    The longer it has waited, the longer the pause until it looks again: looking may cost what is waited for.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"{otherwise} (waited {seconds} s)")
        time.sleep(min(max(SHORTEST_PAUSE, waited / 10), LONGEST_PAUSE))
