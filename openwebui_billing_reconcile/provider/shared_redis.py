"""State that all workers and machines of a host share, kept in the host's Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from openwebui_billing_reconcile.concurrency import PerLoop

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

COMMAND_TIMEOUT: Final = 0.5
"""The longest wait for one script, in seconds, connecting included."""

OUTAGE_PAUSE: Final = 5.0
"""Seconds for which Redis is not asked after an error, so that an outage delays few callers."""

MAX_CONNECTIONS: Final = 10
"""Connections to Redis, per event loop."""

_PREFIX: Final = "openwebui_billing_reconcile"
_UNSHARED: Final = "each worker keeps a rate limit and cooldown of its own"


class SharedRedis:
    """Runs scripts on the host's Redis. Used from any number of event loops."""

    def __init__(
        self, connect: Callable[[], Redis], key_prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``connect`` makes a client; ``key_prefix`` goes before our own prefix, "" for none."""
        self._clients = PerLoop(connect)  # a client's connections belong to its event loop
        self._slots = PerLoop(lambda: asyncio.Semaphore(MAX_CONNECTIONS))
        self._prefix = f"{key_prefix}:{_PREFIX}" if key_prefix else _PREFIX
        self._clock = clock
        self._retry_at: float | None = None  # during an outage

    async def run(self, script: str, key: str, *arguments: int) -> int | None:
        """Run a Lua script on one key, atomically, and return its integer; ``None`` without Redis.

        Never raises because of Redis. An outage is one log line, and so is its end.
        """
        retry_at = self._retry_at
        if retry_at is not None and self._clock() < retry_at:
            return None
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT), self._slots.get():
                reply: Any = self._clients.get().eval(script, 1, f"{self._prefix}:{key}", *arguments)
                answer = int(await reply)
        except Exception as error:  # noqa: BLE001 - without Redis, in whatever way, the caller has its own state
            if self._retry_at is None:
                log.warning("Redis does not answer (%s): %s for now", type(error).__name__, _UNSHARED)
            self._retry_at = self._clock() + OUTAGE_PAUSE
            return None
        if retry_at is not None and self._retry_at == retry_at:  # what began before an outage does not end it
            self._retry_at = None
            log.info("Redis answers again: workers share rate limit and cooldown")
        return answer

    async def close(self) -> None:
        """Close the running event loop's connections."""
        await self._clients.get().connection_pool.disconnect()


def open_redis(url: str, key_prefix: str) -> SharedRedis | None:
    """Return the Redis at ``url``; ``None`` where there is no URL, or it or the redis package is unusable."""
    if not url:
        return None
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as RedisConnectionError

        def connect() -> Redis:
            # One retry, for a connection that Redis has closed meanwhile.
            client: Redis = Redis.from_url(
                url, retry=Retry(NoBackoff(), 1), retry_on_error=[RedisConnectionError]
            )
            return client

        connect()  # reads the URL only
    except (ImportError, ValueError) as error:
        # The type only: the URL holds a password.
        log.warning("REDIS_URL cannot be used (%s): %s", type(error).__name__, _UNSHARED)
        return None
    return SharedRedis(connect, key_prefix)
