"""How many provider queries one user may cause."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Final

import limits
from cachetools import LRUCache

from openwebui_billing_reconcile.errors import RateLimitedError

MAX_USERS: Final = 50_000
"""Users remembered at a time in one process; the one idle longest is forgotten first."""


class RateLimiter:
    """Provider queries per user: each rate holds, over a moving window.

    Counted in this process, for all its event loops.
    """

    def __init__(
        self,
        rates: Sequence[limits.RateLimitItem],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` counts seconds."""
        self._rates = [(rate.amount, rate.get_expiry()) for rate in rates]
        self._most = max(amount for amount, _ in self._rates)
        self._clock = clock
        self._hits: LRUCache[str, array[float]] = LRUCache(MAX_USERS)  # each user's, the newest last
        self._lock = threading.Lock()

    async def hit(self, user_id: str) -> None:
        """Count one query. Raises ``RateLimitedError`` when the user has none left."""
        wait = self._hit_here(user_id)
        if wait > 0:
            raise RateLimitedError(retry_after=math.ceil(wait))

    def _hit_here(self, user_id: str) -> float:
        """Count one query and return 0; where a rate forbids it, the seconds until all allow it."""
        with self._lock:
            now = self._clock()
            hits = self._hits.get(user_id) or array("d")
            waits = [hits[-amount] + window - now for amount, window in self._rates if amount <= len(hits)]
            wait = max([0.0, *waits])
            if wait == 0:
                hits.append(now)
                del hits[: -self._most]
                self._hits[user_id] = hits
            return wait
