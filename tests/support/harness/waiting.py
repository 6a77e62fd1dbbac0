"""Waiting for something to become true, and no longer than needed."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_SECONDS = 0.02


def wait_until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Return as soon as the condition holds; fail with `otherwise` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} (waited {seconds} s)")
        time.sleep(STEP_SECONDS)
