"""The provider client: deadline, slots, cooldown and remembered answers around a ``PaymentGateway``.

What users share is the provider's answer only. Whose payment it is, and what is to be done, is decided for
each of them elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cachetools import TTLCache

from openwebui_billing_reconcile.concurrency import KeyedLock, TaskSet
from openwebui_billing_reconcile.errors import (
    GatewayRejectedError,
    GatewayThrottledError,
    InvalidProviderResponseError,
    PaymentNotFoundError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    ReconcileError,
)
from openwebui_billing_reconcile.hookspecs import CapturedPage, ListingGateway, PaymentGateway
from openwebui_billing_reconcile.money.values import ProviderPayment

from .cooldown import Cooldown
from .poll_schedule import next_poll

log = logging.getLogger(__name__)

T = TypeVar("T")

OnQuery = Callable[[str, str], None]

MAX_QUERIES_IN_FLIGHT: Final = 10
"""Queries at a time about one account at a provider, per event loop."""

ANSWER_TTL: Final = 1.0
"""Seconds for which an answer counts as fresh."""

LIST_TIMEOUT: Final = 15.0
"""The longest wait for one page of a list, in seconds, the wait for a slot included: no user waits for it."""

_IDLE_SECONDS: Final = 120.0  # without a query for so long, the poll schedule starts anew
_MAX_PAYMENTS: Final = 1024  # remembered at a time; the one idle longest is forgotten first


async def charge_nothing() -> None:
    """Charge nothing: the query is charged already, or nobody asked for it."""


def ignore_query(kind: str, outcome: str) -> None:
    """Do nothing: queries are not counted."""


class QueryState:
    """What this event loop knows of one payment's queries."""

    def __init__(self, now: float) -> None:
        self.first_poll = now
        self.task: asyncio.Task[ProviderPayment | None] | None = None
        self.answered_at = -math.inf

    def current(self, now: float, max_age: float) -> asyncio.Task[ProviderPayment | None] | None:
        """Return the query to join: unanswered, or answered less than ``max_age`` seconds ago."""
        if self.task and self.task.done() and now - self.answered_at >= max_age:
            return None
        return self.task


class ProviderClient:
    """Fetches payments from the provider. One instance belongs to one event loop."""

    def __init__(
        self,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        cooldown: Cooldown | None = None,
        on_query: OnQuery = ignore_query,
    ) -> None:
        """``deadline`` is the longest wait for one answer, in seconds, the wait for a slot included.

        ``cooldown`` is the one to share with other clients, if any; ``clock`` counts seconds. ``on_query`` is
        called after each query with "payment" or "list", and "answered", "not_found", "abandoned" or an
        error's code.
        """
        self._on_query = on_query
        self._deadline = deadline
        self._cooldown = cooldown or Cooldown(clock=clock)
        self._clock = clock
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(MAX_QUERIES_IN_FLIGHT)
        )
        self._tasks = TaskSet()
        self._queries: TTLCache[str, QueryState] = TTLCache(_MAX_PAYMENTS, _IDLE_SECONDS, timer=clock)
        self._start_locks = KeyedLock()

    async def fetch(
        self,
        gateway: PaymentGateway,
        payment_id: str,
        *,
        on_new_query: Callable[[], Awaitable[None]] = charge_nothing,
        max_age: float = ANSWER_TTL,
    ) -> ProviderPayment | None:
        """Return the payment as the provider tells it, ``None`` when the provider does not know it.

        Joins a query under way, or takes an answer younger than ``max_age`` seconds. Otherwise calls
        ``on_new_query``, which may raise, and asks. A caller that is cancelled cancels no query. Raises
        ``ProviderRejectedError``, ``InvalidProviderResponseError``, ``NotConfiguredError`` or
        ``ProviderUnavailableError``.
        """
        async with self._start_locks(payment_id):  # so that no other query starts while this one is charged
            state = self._state(payment_id)
            query = state.current(self._clock(), max_age)
            if query is None:
                await self._check_cooldown(gateway)
                await on_new_query()
                self._queries[payment_id] = state  # its idle time starts anew
                state.answered_at = -math.inf  # until this one is: it may fail when nobody waits any more
                query = state.task = self._tasks.start(self._query(gateway, payment_id, state))
        done, _ = await asyncio.wait({query})
        if state.task is query and (query.cancelled() or query.exception()):
            state.task = None  # a failure is not remembered, nor what its traceback refers to
        if query.cancelled():
            raise ProviderUnavailableError
        del query  # a failed task and this frame would keep each other alive, with the provider's body
        return done.pop().result()

    def retry_after(self, payment_id: str) -> int:
        """Return the seconds until the next poll for an undecided payment is due."""
        return next_poll(self._clock() - self._state(payment_id).first_poll)

    def _state(self, payment_id: str) -> QueryState:
        state = self._queries.get(payment_id)
        if state is None:
            state = self._queries[payment_id] = QueryState(self._clock())
        return state

    async def list_captured(self, gateway: ListingGateway, since: float, cursor: str | None) -> CapturedPage:
        """Return a page of the provider's list of captured payments; see ``ListingGateway``.

        Raises as ``fetch`` does. A list is a query as any other: it waits for a slot and heeds the cooldown.
        """
        try:
            page = await self._exchange(
                "list", gateway, LIST_TIMEOUT, lambda: gateway.list_captured(since, cursor)
            )
        except PaymentNotFoundError as error:  # a gateway's mistake: a list that is not there is no list
            raise ProviderUnavailableError from error
        if not isinstance(page, CapturedPage):
            raise InvalidProviderResponseError("Payment provider sent an unreadable list")
        return page

    async def _query(
        self, gateway: PaymentGateway, payment_id: str, state: QueryState
    ) -> ProviderPayment | None:
        async def get() -> ProviderPayment:
            return ProviderPayment.parse(await gateway.get_payment(payment_id), payment_id)

        try:
            payment = await self._exchange("payment", gateway, self._deadline, get)
        except PaymentNotFoundError:
            payment = None
        state.answered_at = self._clock()
        return payment

    async def _exchange(
        self, kind: str, gateway: PaymentGateway, seconds: float, query: Callable[[], Awaitable[T]]
    ) -> T:
        outcome = "abandoned"
        try:
            async with asyncio.timeout(seconds), self._slots[_account(gateway)]:
                await self._check_cooldown(gateway)  # one may have begun while this query waited for its slot
                answer = await query()
            outcome = "answered"
            return answer
        except PaymentNotFoundError:
            outcome = "not_found"
            raise
        except ReconcileError as error:
            outcome = error.reason
            raise
        except Exception as error:  # noqa: BLE001 - it is raised below, as one of ours
            translated = await self._translate_error(gateway, error)
            outcome = translated.reason
            try:
                raise translated from error
            finally:
                del translated  # else it and this frame keep each other alive, with the provider's body
        finally:
            self._on_query(kind, outcome)

    async def _translate_error(self, gateway: PaymentGateway, error: Exception) -> ReconcileError:
        # Names only: what a provider or a network library wrote into the text stays out of our log.
        cause = type(error.__cause__).__name__ if error.__cause__ else "no cause"
        log.info("The payment provider did not answer: %s (%s)", type(error).__name__, cause)
        if isinstance(error, GatewayRejectedError):
            return ProviderRejectedError("Payment provider rejected the payment request")
        if isinstance(error, GatewayThrottledError):
            return ProviderThrottledError(retry_after=await self._start_cooldown(gateway, error))
        return ProviderUnavailableError()

    async def _start_cooldown(self, gateway: PaymentGateway, throttled: GatewayThrottledError) -> int:
        """Pause all queries about the account, as its provider asks; return for how many seconds."""
        return math.ceil(await self._cooldown.start(_account(gateway), throttled.retry_after))

    async def _check_cooldown(self, gateway: PaymentGateway) -> None:
        remaining = await self._cooldown.remaining(_account(gateway))
        if remaining > 0:
            raise ProviderThrottledError(retry_after=math.ceil(remaining))


def _account(gateway: PaymentGateway) -> str:
    """What slots and cooldown are for: another provider's troubles leave ours alone."""
    return str(gateway.account_id or "")
