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

from .shared_redis import SharedRedis

MAX_USERS: Final = 50_000
"""Users remembered at a time in one process; the one idle longest is forgotten first."""

# A list of hits, the newest first. Arguments: longest history, longest window, then each rate's amount and
# window. Milliseconds of Redis's own clock, so that the clocks of machines need not agree.
_HIT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local newest = redis.call('LINDEX', KEYS[1], 0)
if newest and tonumber(newest) > now then
    redis.call('DEL', KEYS[1]) -- the clock was set back
end
local wait = 0
for i = 3, #ARGV, 2 do
    local hit = redis.call('LINDEX', KEYS[1], ARGV[i] - 1)
    if hit then
        wait = math.max(wait, hit + ARGV[i + 1] - now)
    end
end
if wait == 0 then
    redis.call('LPUSH', KEYS[1], now)
    redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return wait
"""


class RateLimiter:
    """Provider queries per user: each rate holds, over a moving window.

    Counted in Redis where that answers, else in this process; there for all its event loops.
    """

    def __init__(
        self,
        rates: Sequence[limits.RateLimitItem],
        redis: SharedRedis | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``redis`` is the state shared with other workers, if any; ``clock`` counts seconds."""
        self._rates = [(rate.amount, rate.get_expiry()) for rate in rates]
        self._most = max(amount for amount, _ in self._rates)
        self._redis = redis
        self._clock = clock
        self._hits: LRUCache[str, array[float]] = LRUCache(MAX_USERS)  # each user's, the newest last
        self._lock = threading.Lock()

    async def hit(self, user_id: str) -> None:
        """Count one query. Raises ``RateLimitedError`` when the user has none left."""
        wait = await self._hit_redis(user_id)
        if not wait:
            # What Redis has granted is counted here as well, for an outage.
            here = self._hit_here(user_id)
            wait = here if wait is None else 0.0
        if wait > 0:
            raise RateLimitedError(retry_after=math.ceil(wait))

    async def _hit_redis(self, user_id: str) -> float | None:
        """Like ``_hit_here``, in Redis; ``None`` without Redis."""
        if self._redis is None:
            return None
        rates = [number for amount, window in self._rates for number in (amount, window * 1000)]
        longest = max(window for _, window in self._rates) * 1000
        wait = await self._redis.run(_HIT, f"queries:{user_id}", self._most, longest, *rates)
        return None if wait is None else wait / 1000

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
