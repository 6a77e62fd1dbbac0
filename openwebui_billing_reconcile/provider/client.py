"""When the provider is asked, and how long anybody waits.

What is shared among users, and remembered, is the provider's answer only. Whose payment it is, and what is to
be done, is found out for each of them; one user's callers share that as long as it has not begun.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio.to_thread
import limits
from anyio import CapacityLimiter
from cachetools import TTLCache
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from openwebui_billing_reconcile.errors import (
    GatewayBusyError,
    GatewayRejectedError,
    PaymentUnknownError,
    ProviderRejectedError,
    ReconcileError,
    TooManyQuestionsError,
    TryLaterError,
)
from openwebui_billing_reconcile.hookspecs import PaymentGateway
from openwebui_billing_reconcile.money.values import ProviderPayment

log = logging.getLogger(__name__)

T = TypeVar("T")

REPLY_SECONDS = 12.0
"""The longest a caller waits for the whole reply."""

QUESTIONS_IN_FLIGHT = 10
"""Questions to the provider at a time, per worker."""

READING_THREADS = 2
WRITING_THREADS = 2
"""Threads for database work, per worker: four together, a small part of the host's pool of 5 + 10
connections. Writing has its own, because it can wait for a wallet's row as long as somebody else holds it,
and proofs must be read meanwhile.
"""

REMEMBER_SECONDS = 1.0
"""How long an answer counts as fresh."""

# From the first question of a return. The provider asks its clients to poll "at growing intervals, for
# example Fibonacci". Sums of 3, 5, 8, 13, 21, 34: six questions in the first minute.
_SCHEDULE = (3, 8, 16, 29, 50, 84)
_LAST_STEP = 34
_IDLE_SECONDS = 120.0
_TALKS = 1024  # payments remembered at a time; the oldest is forgotten first
_LONGEST_PAUSE = 60.0
_BRIEFLY_SECONDS = 1.0
_STILL_CHECKING = "Payment is still being checked"
_OUT_OF_REACH = "Payment provider is temporarily unavailable"


class Budget:
    """Questions a user may cause, per worker; shared by all event loops of the process."""

    def __init__(self, rate: limits.RateLimitItem) -> None:
        self._rate = rate
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def spend(self, user_id: str) -> None:
        """Take one unit. Raises ``TooManyQuestionsError`` when there is none left."""
        if self._window.hit(self._rate, user_id):
            return
        free_at = self._window.get_window_stats(self._rate, user_id).reset_time
        raise TooManyQuestionsError(retry_after=max(1, math.ceil(free_at - time.time())))


class _Talk:
    """What one worker and the provider have said about one payment lately."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.question: asyncio.Task[ProviderPayment | None] | None = None
        self.answered_at = -math.inf

    def open_question(self, now: float, memory: float) -> asyncio.Task[ProviderPayment | None] | None:
        """The last question, where it can be joined: unanswered, or answered within ``memory`` seconds."""
        if self.question and self.question.done() and now - self.answered_at >= memory:
            return None
        return self.question


class Pacing:
    """The pacing of one event loop."""

    def __init__(self, deadline_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline = deadline_seconds
        self._clock = clock
        self._slots = asyncio.Semaphore(QUESTIONS_IN_FLIGHT)
        self._reading = asyncio.Semaphore(READING_THREADS)
        self._writing = asyncio.Semaphore(WRITING_THREADS)
        self._threads = CapacityLimiter(READING_THREADS + WRITING_THREADS)
        self._not_begun: dict[Hashable, asyncio.Task[Any]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._talks: TTLCache[str, _Talk] = TTLCache(_TALKS, _IDLE_SECONDS, timer=clock)
        self._paused_until = -math.inf
        self._background: set[asyncio.Task[object]] = set()

    async def reading(self, work: Callable[[], T], what: Hashable) -> T:
        """Read the database off the event loop, once for all who want the same."""
        return await self.together(what, self._reading, partial(self._on_thread, work))

    async def writing(self, work: Callable[[], T]) -> T:
        """Write to the database off the event loop; in the user's turn only."""
        async with self._writing:
            return await self._on_thread(work)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def together(
        self,
        what: Hashable,
        gate: AbstractAsyncContextManager[object],
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """Have ``work`` done behind ``gate``, once for all who want the same ``what`` before it has begun.

        Who comes later may know of something it misses, and has it done anew.
        """
        task = self._not_begun.get(what)
        if task is None:
            task = self._not_begun[what] = self._start(self._behind(gate, what, work))
        done, _ = await asyncio.wait({task})
        del task  # an error would hold this frame, and this frame the error
        result: T = done.pop().result()
        return result

    async def _behind(
        self,
        gate: AbstractAsyncContextManager[object],
        what: Hashable,
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(gate)
            finally:
                del self._not_begun[what]
            return await work()

    async def reply(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work`` as long as a reply may take; it goes on after that, and without its caller.

        Raises ``TryLaterError`` when the time is up.
        """
        done, _ = await asyncio.wait({self._start(work)}, timeout=REPLY_SECONDS)
        if not done:
            raise TryLaterError(_STILL_CHECKING, reason="slow")
        return done.pop().result()

    async def briefly(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Wait a second for ``work`` and go on without it after that; ``None`` then."""
        done, _ = await asyncio.wait({self._start(work)}, timeout=_BRIEFLY_SECONDS)
        return done.pop().result() if done else None

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` as nobody's: whoever waits for it may go away without taking it along."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[object]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone; asyncio would report it as never retrieved

    @asynccontextmanager
    async def turn(self, user_id: str) -> AsyncIterator[None]:
        """One at a time in this worker may decide and write for a user; the next finds the ledger written.

        So a wallet whose row is stuck holds up its owner and one thread, and nobody else. Raises
        ``TryLaterError`` where the turn does not come within the time of a reply.
        """
        lock = self._turns.setdefault(user_id, asyncio.Lock())
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await lock.acquire()
        except TimeoutError:
            raise TryLaterError(_STILL_CHECKING, reason="slow") from None
        try:
            yield
        finally:
            lock.release()

    def is_taken(self, user_id: str) -> bool:
        """Whether somebody is having this user's turn."""
        lock = self._turns.get(user_id)
        return lock is not None and lock.locked()

    async def ask(
        self, gateway: PaymentGateway, payment_id: str, user_id: str, afford: Callable[[], None]
    ) -> ProviderPayment | None:
        """The provider's answer about the payment for this user, ``None`` when it does not know it.

        Joins a question under way or an answer just received; else calls ``afford``, which may raise, and
        asks. Raises ``ProviderRejectedError``, ``ProviderNonsenseError`` or ``TryLaterError``.
        """
        now = self._clock()
        talk = self._talk(payment_id)
        # While an answer is still being acted upon, whoever comes late joins it, as long as a reply may take.
        memory = REPLY_SECONDS if self.is_taken(user_id) else REMEMBER_SECONDS
        question = talk.open_question(now, memory)
        if question is None:
            self._check_pause(now)
            afford()
            self._talks[payment_id] = talk  # anew: its idle time starts here
            question = talk.question = self._start(self._question(gateway, payment_id, talk))
        done, _ = await asyncio.wait({question})
        if talk.question is question and (question.cancelled() or question.exception()):
            talk.question = None  # not remembered, nor what its traceback holds on to
        if question.cancelled():
            raise TryLaterError(_OUT_OF_REACH, reason="provider_unavailable")
        del question  # an error would hold this frame, and this frame the error, with the provider's body
        return done.pop().result()

    def retry_after(self, payment_id: str) -> int:
        """Seconds until the next question about an undecided payment is due."""
        elapsed = self._clock() - self._talk(payment_id).began
        # A caller a moment early has kept its appointment and is given the next one.
        due = next((at for at in _SCHEDULE if at - elapsed >= 1), elapsed + _LAST_STEP)
        return math.ceil(due - elapsed)

    def _talk(self, payment_id: str) -> _Talk:
        talk = self._talks.get(payment_id)
        if talk is None:
            talk = self._talks[payment_id] = _Talk(self._clock())
        return talk

    async def _question(
        self, gateway: PaymentGateway, payment_id: str, talk: _Talk
    ) -> ProviderPayment | None:
        try:
            async with asyncio.timeout(self._deadline), self._slots:
                self._check_pause(self._clock())  # one may have begun while this one waited for its slot
                answer = await gateway.get_payment(payment_id)
            payment = ProviderPayment.of_answer(answer, payment_id)
        except PaymentUnknownError:
            payment = None
        except ReconcileError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        talk.answered_at = self._clock()
        return payment

    def _explained(self, error: Exception) -> ReconcileError:
        # Names only: what a provider or a network library wrote into the text stays out of our log.
        cause = type(error.__cause__).__name__ if error.__cause__ else "no cause"
        log.info("The payment provider did not answer: %s (%s)", type(error).__name__, cause)
        if isinstance(error, GatewayRejectedError):
            return ProviderRejectedError("Payment provider rejected the payment request")
        if isinstance(error, GatewayBusyError):
            pause = min(max(1.0, error.retry_after), _LONGEST_PAUSE)
            self._paused_until = max(self._paused_until, self._clock() + pause)
            return TryLaterError(_OUT_OF_REACH, reason="provider_busy", retry_after=math.ceil(pause))
        return TryLaterError(_OUT_OF_REACH, reason="provider_unavailable")

    def _check_pause(self, now: float) -> None:
        if now < self._paused_until:
            raise TryLaterError(
                _OUT_OF_REACH,
                reason="provider_busy",
                retry_after=math.ceil(self._paused_until - now),
            )


class PacingPerLoop:
    """One ``Pacing`` for each event loop, since locks and tasks belong to theirs."""

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline = deadline_seconds
        self._by_loop: dict[asyncio.AbstractEventLoop, Pacing] = {}

    def here(self) -> Pacing:
        """The pacing of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._by_loop = {known: p for known, p in self._by_loop.items() if not known.is_closed()}
            self._by_loop[loop] = Pacing(self._deadline)
        return self._by_loop[loop]
