"""What is said once a day: by all workers together where the host has Redis, else by each process."""

from __future__ import annotations

import threading
from typing import Final

from cachetools import TTLCache

from openwebui_billing_reconcile.provider.shared_redis import SharedRedis

DAY: Final = 24 * 60 * 60  # seconds

_MAX_REMEMBERED: Final = 20_000

_ADD: Final = """
if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 1 end
return 0
"""


class OnceADay:
    """Tells whether something is new today. Used from any number of event loops."""

    def __init__(self, redis: SharedRedis | None = None) -> None:
        self._redis = redis
        self._known: TTLCache[str, bool] = TTLCache(_MAX_REMEMBERED, DAY)
        self._lock = threading.Lock()

    async def is_first(self, what: str) -> bool:
        """Return whether ``what`` was not asked about in the last 24 hours."""
        with self._lock:
            if what in self._known:
                return False
            self._known[what] = True
        return self._redis is None or await self._redis.run(_ADD, f"told:{what}", DAY) != 0
