"""The sweep: settles paid top-ups that nobody comes back to, and closes those the provider canceled.

One pass goes through the provider's list of captured payments, then asks about the host's own open top-ups as
they grow old. What it finds is settled as if its user had asked.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cachetools import TTLCache

from openwebui_billing_reconcile.errors import (
    NotConfiguredError,
    PaymentHeldError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    ReconcileError,
)
from openwebui_billing_reconcile.hookspecs import ListingGateway, Way
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.values import OpenTopup, ReconcileResult
from openwebui_billing_reconcile.topup.reconcile import Reconciler

from .captured import captured_pages
from .election import Election

log = logging.getLogger(__name__)

T = TypeVar("T")

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

LOOK_BACK: Final = 26 * HOUR
"""How far back the first pass lists, in seconds: the provider redelivers its notification for 24 hours."""

OVERLAP: Final = 15 * MINUTE
"""How far each list reaches behind the last one, in seconds: clocks differ, captures may be listed late."""

OPEN_AGES: Final = (65 * MINUTE, 6 * HOUR, 25 * HOUR, 3 * DAY, 7 * DAY)
"""The ages at which an open top-up is asked about. A card payment lives for an hour at the provider."""

OLDEST_OPEN: Final = 8 * DAY
"""Open top-ups older than this, in seconds, are left to the audit."""

MAX_OPEN_QUERIES: Final = 20
"""Open top-ups asked about in one pass."""

QUERY_INTERVAL: Final = 1.0
"""Seconds between two of these queries, so that people's own come first."""

LOOKUP_SIZE: Final = 200
"""Listed payments, two pages, that are looked up in one statement."""

MAX_PAUSE: Final = 15 * MINUTE
"""The longest pause that the provider's throttling leads to, in seconds."""

STOP_TIMEOUT: Final = 1.0
"""How long a stopping host waits for a credit under way, in seconds."""

_JITTER: Final = 0.2
_FIRST_PAUSE: Final = (0.125, 0.375)  # of the interval, so that the workers of a host do not start as one
_MAX_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class Pass:
    """What one pass did. ``began_at`` is in epoch seconds, ``seconds`` how long it took.

    ``credited`` and ``canceled`` count what was written. ``is_complete``: the provider's list was read to its
    end, and open top-ups were asked about.
    """

    began_at: float
    seconds: float = 0.0
    listed: int = 0
    credited: int = 0
    canceled: int = 0
    held: int = 0
    failed: int = 0
    others: int = 0
    """Payments of the shop that are no top-ups of this host."""
    unreadable: int = 0
    is_complete: bool = False

    def __str__(self) -> str:
        counts = "credited", "canceled", "held", "failed", "listed", "others", "unreadable"
        return " ".join(f"{name}={getattr(self, name)}" for name in counts)


class Sweep:
    """Makes passes over one host's top-ups. Belongs to one event loop."""

    def __init__(
        self,
        host: OpenWebUIHost,
        reconciler: Reconciler,
        interval: float,
        on_pass: Callable[[Pass], None] = lambda done: None,
    ) -> None:
        """``interval`` is the number of seconds from one pass to the next; ``on_pass`` is told of each."""
        self._on_pass = on_pass
        self._host = host
        self._reconciler = reconciler
        self._interval = interval
        self._pause = interval
        self._election = Election(host)
        self._watermark: float | None = None
        self._ages_asked: TTLCache[str, int] = TTLCache(_MAX_REMEMBERED, OLDEST_OPEN)
        self._last_asked: OpenTopup | None = None
        self._failures_logged: TTLCache[str, bool] = TTLCache(_MAX_REMEMBERED, HOUR)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep in the background until the end of the ``with``; a credit under way is finished."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_TIMEOUT)

    async def _run(self) -> None:
        await asyncio.sleep(self._interval * random.uniform(*_FIRST_PAUSE))  # noqa: S311 - no secret
        while True:
            try:
                await self._take_turn()
            except Exception as error:  # noqa: BLE001 - the task never dies
                self._log_failure(error)
                await asyncio.sleep(self._interval)

    async def _take_turn(self) -> None:
        async with self._election.candidate() as is_elected:
            if is_elected:
                await self.make_pass()
            # The lock is held through the pause too: the workers together make one pass an interval.
            await asyncio.sleep(self._pause * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret

    async def make_pass(self) -> Pass:
        """Make one pass now. Raises nothing but cancellation: what fails is logged, and is due again."""
        done = Pass(began_at=time.time())
        is_throttled = False
        try:
            if self._host.wallet_enabled:
                is_list_read = await self._settle_captured(done)
                await self._ask_about_open(done)
                done.is_complete = is_list_read
        except Exception as error:  # noqa: BLE001 - see the docstring
            is_throttled = isinstance(error, ProviderThrottledError)
            self._log_failure(error)
        self._pause = min(2 * self._pause, max(MAX_PAUSE, self._interval)) if is_throttled else self._interval
        done.seconds = time.time() - done.began_at
        if done.credited or done.canceled:
            log.info("Top-up sweep: %s seconds=%.1f", done, done.seconds)
        self._on_pass(done)
        return done

    async def _settle_captured(self, done: Pass) -> bool:
        """Go through the provider's list of what was captured since the last pass.

        Returns whether there is such a list.
        """
        gateway = self._host.hook.payment_gateway(host=self._host, payment_id="")
        if not isinstance(gateway, ListingGateway):
            return False
        watermark = done.began_at - LOOK_BACK if self._watermark is None else self._watermark
        async for items in self._batches(gateway, watermark - OVERLAP):
            await self._settle_listed(gateway, items, done)
        # What failed is listed again, unless it has failed for as long as the first pass looks back.
        self._watermark = max(watermark, done.began_at - LOOK_BACK) if done.failed else done.began_at
        return True

    async def _batches(self, gateway: ListingGateway, since: float) -> AsyncIterator[list[object]]:
        """Yield what is listed, as much as is looked up at once; also what precedes a page that fails."""
        items: list[object] = []
        try:
            async for page in captured_pages(self._reconciler.list_captured, gateway, since):
                items += page.items
                if len(items) >= LOOKUP_SIZE:
                    yield items
                    items = []
        except Exception:
            yield items
            raise
        yield items

    async def _settle_listed(self, gateway: ListingGateway, items: list[object], done: Pass) -> None:
        if not items:
            return  # it costs no statement
        unsettled = await self._reconciler.find_unsettled(items)
        done.listed += len(items)
        done.others += unsettled.others
        done.unreadable += unsettled.unreadable
        service = self._host.billing_service
        for user_id, payment in unsettled.topups:
            work = self._reconciler.settle_listed(service, user_id, payment, gateway)
            await self._count(work, done)

    async def _ask_about_open(self, done: Pass) -> None:
        """Ask about open top-ups that have reached one of ``OPEN_AGES`` since they were last asked about.

        Goes on behind those that filled the pass before, so that none that fails again and again keeps the
        younger ones waiting; behind the youngest the next pass begins with the oldest.
        """
        service = self._host.billing_service
        queries = 0
        async for topup, ages in self._due_topups(done.began_at):
            if queries == MAX_OPEN_QUERIES:
                return
            if queries:
                await asyncio.sleep(QUERY_INTERVAL)
            queries += 1
            work = self._reconciler.reconcile(service, topup.user_id, topup.payment_id, Way.SWEEP)
            if await self._count(work, done):
                self._ages_asked[topup.payment_id] = ages
            self._last_asked = topup
        self._last_asked = None

    async def _due_topups(self, now: float) -> AsyncIterator[tuple[OpenTopup, int]]:
        last = self._last_asked
        while page := await self._reconciler.list_open(now - OLDEST_OPEN, now - OPEN_AGES[0], last):
            for topup in page:
                ages = sum(now - topup.created_at >= age for age in OPEN_AGES)
                if ages > self._ages_asked.get(topup.payment_id, 0):
                    yield topup, ages
            last = page[-1]

    async def _count(self, work: Coroutine[Any, Any, ReconcileResult], done: Pass) -> bool:
        """Do the work and count what came of it; return whether the provider's answer was acted on.

        Raises the errors of a provider that cannot be asked about other payments either.
        """
        try:
            result = await _finish(work)
        except PaymentHeldError:
            done.held += 1
            return True
        except (NotConfiguredError, ProviderRejectedError, ProviderUnavailableError):
            raise
        except ReconcileError as error:
            done.failed += 1
            self._log_failure(error)
            return error.retry_after is None  # else it is no attempt: asking again can help
        if result.is_new:
            done.credited += result.credited
            done.canceled += not result.credited
        return True

    def _log_failure(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, ReconcileError) else type(error).__name__
        if reason not in self._failures_logged:
            self._failures_logged[reason] = True
            log.warning("The top-up sweep could not do all: %s", reason)


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; where the task is cancelled, that waits for it: a credit under way is finished."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=STOP_TIMEOUT)
        raise
