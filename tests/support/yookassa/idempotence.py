"""The memory behind `Idempotence-Key`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import invalid

HEADER = "Idempotence-Key"
LONGEST_KEY = 64
REMEMBERED_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class _First:
    request: str
    answer: dict[str, Any]
    at: float


class Memory:
    """First answers by key, for a day. A refused request is not remembered: it did nothing."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._firsts: dict[str, _First] = {}

    def recall(self, key: str, request: str) -> dict[str, Any] | None:
        """The first answer to this very request, if it came before under this key."""
        self._forget_old()
        first = self._firsts.get(key)
        if first is None:
            return None
        if first.request != request:
            raise invalid("The idempotence key was used for another request", HEADER)
        return first.answer

    def remember(self, key: str, request: str, answer: dict[str, Any]) -> None:
        """Keep the answer for repetitions."""
        self._firsts[key] = _First(request, answer, self._now())

    def clear(self) -> None:
        """Forget everything."""
        self._firsts.clear()

    def _forget_old(self) -> None:
        # Oldest first: a dict keeps the order of insertion, and no key is written twice.
        horizon = self._now() - REMEMBERED_SECONDS
        while self._firsts and (key := next(iter(self._firsts))):
            if self._firsts[key].at > horizon:
                return
            del self._firsts[key]


def read_key(value: str | None) -> str:
    """Check the header of a POST."""
    if not value:
        raise invalid("The idempotence key is missing", HEADER)
    if len(value) > LONGEST_KEY:
        raise invalid(f"The idempotence key is longer than {LONGEST_KEY} characters", HEADER)
    return value
