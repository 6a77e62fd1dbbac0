"""What stops two calls of one user from writing at once, in one event loop.

Between workers the database decides: see "Why a payment is credited once" in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from openwebui_billing_reconcile.concurrency import KeyedLock, SerialThread
from openwebui_billing_reconcile.errors import StillBeingCheckedError

T = TypeVar("T")


class UserWriteLock:
    """One call at a time decides and writes for a user, so that a stuck wallet holds up its owner alone."""

    def __init__(self, thread: SerialThread) -> None:
        """Whoever holds the lock has a slot of ``thread``."""
        self._thread = thread
        self._locks = KeyedLock()

    def is_held(self, user_id: str) -> bool:
        """Whether somebody writes for the user."""
        return self._locks.locked(user_id)

    @asynccontextmanager
    async def hold(self, user_id: str, expires_at: float) -> AsyncIterator[None]:
        """Hold the user's lock and a thread's slot.

        Raises ``StillBeingCheckedError`` when they cannot be had by ``expires_at``, in seconds of the
        monotonic clock.
        """
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(expires_at - time.monotonic()):
                    await held.enter_async_context(self._locks(user_id))
                    await held.enter_async_context(self._thread.slot())
            except TimeoutError:
                raise StillBeingCheckedError from None
            yield

    async def run(self, user_id: str, expires_at: float, work: Callable[[], T]) -> T:
        """Run ``work`` on the thread while holding the user's lock; raises as ``hold`` does."""
        async with self.hold(user_id, expires_at):
            return await self._thread.run(work)
