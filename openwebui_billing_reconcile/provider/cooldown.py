"""The pause of all queries about one account that its provider asks for with a 429.

Who asks the provider starts it and keeps to it: see ``client``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from .shared_redis import SharedRedis

MAX_COOLDOWN: Final = 60.0
"""Seconds."""

DEFAULT_COOLDOWN: Final = 5.0
"""Seconds, where the provider does not say how long."""

# Both take milliseconds: how long the cooldown is; how long it can be.
_START: Final = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
end
return 0
"""
_REMAINING: Final = """
local remaining = redis.call('PTTL', KEYS[1])
if remaining > tonumber(ARGV[1]) then
    redis.call('DEL', KEYS[1]) -- the clock was set back
    return 0
end
return math.max(remaining, 0)
"""


class Cooldown:
    """One cooldown for each account at a provider, shared by all workers where Redis answers."""

    def __init__(self, redis: SharedRedis | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """``redis`` is the state shared with other workers, if any; ``clock`` counts seconds."""
        self._redis = redis
        self._clock = clock
        self._until: dict[str, float] = {}

    async def start(self, account: str, seconds: object) -> float:
        """Begin a cooldown, unless a longer one is on; return its seconds, 1 to ``MAX_COOLDOWN``.

        ``seconds`` is what a gateway says, which may be no number.
        """
        if not isinstance(seconds, int | float) or math.isnan(seconds):
            seconds = DEFAULT_COOLDOWN
        cooldown = min(max(1.0, seconds), MAX_COOLDOWN)
        self._until[account] = max(self._until.get(account, -math.inf), self._clock() + cooldown)
        if self._redis is not None:
            await self._redis.run(_START, _key(account), math.ceil(cooldown * 1000))
        return cooldown

    async def remaining(self, account: str) -> float:
        """Return the seconds until queries about the account may be sent again, 0 when they may now."""
        remaining = self._until.get(account, -math.inf) - self._clock()
        if remaining <= 0 and self._redis is not None:
            longest = int(MAX_COOLDOWN * 1000)
            remaining = (await self._redis.run(_REMAINING, _key(account), longest) or 0) / 1000
        return max(0.0, remaining)


def _key(account: str) -> str:
    return f"cooldown:{account}"
