"""When the provider is asked, with a clock in the test's hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import limits
import pytest

from openwebui_billing_reconcile.errors import (
    GatewayError,
    GatewayRejectedError,
    GatewayThrottledError,
    InvalidProviderResponseError,
    PaymentNotFoundError,
    ProviderRejectedError,
    RateLimitedError,
    TemporarilyUnavailableError,
)
from openwebui_billing_reconcile.provider import client as pacing
from openwebui_billing_reconcile.provider.client import Budget, Pacing, PacingPerLoop

ID = "pay-1"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Provider:
    """A gateway that answers when the test lets it."""

    account_id: str | None = None
    is_test_shop: bool | None = None
    asked: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    status: str = "pending"
    open: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    peak: int = 0

    async def get_payment(self, payment_id: str) -> object:
        self.asked.append(payment_id)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self.open.wait()
        finally:
            self.in_flight -= 1
        if self.failure:
            raise self.failure
        return {"id": payment_id, "status": self.status}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pace(clock: Clock) -> Pacing:
    return Pacing(deadline_seconds=8.0, clock=clock)


@pytest.fixture
async def provider() -> Provider:
    provider = Provider()
    provider.open.set()
    return provider


def free() -> None:
    """A budget that never runs out."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_simultaneous_callers_share_one_question(pace: Pacing, provider: Provider) -> None:
    provider.open.clear()
    callers = [asyncio.create_task(pace.ask(provider, ID, "me", free)) for _ in range(50)]
    await until(lambda: bool(provider.asked))
    provider.open.set()
    answers = await asyncio.gather(*callers)
    assert len(provider.asked) == 1
    assert all(answer and answer.status == "pending" for answer in answers)


async def test_a_caller_that_goes_away_takes_nothing_from_the_others(
    pace: Pacing, provider: Provider
) -> None:
    provider.open.clear()
    first, second = (asyncio.create_task(pace.ask(provider, ID, "me", free)) for _ in range(2))
    await until(lambda: bool(provider.asked))
    first.cancel()
    provider.open.set()
    assert await second
    assert len(provider.asked) == 1


async def test_an_answer_is_remembered_for_a_second(pace: Pacing, provider: Provider, clock: Clock) -> None:
    await pace.ask(provider, ID, "me", free)
    clock.now += 0.9
    await pace.ask(provider, ID, "me", free)
    assert len(provider.asked) == 1
    clock.now += 0.2
    await pace.ask(provider, ID, "me", free)
    assert len(provider.asked) == 2


async def test_whoever_comes_while_an_answer_is_acted_upon_joins_it(
    pace: Pacing, provider: Provider, clock: Clock
) -> None:
    await pace.ask(provider, ID, "me", free)
    async with pace.turn("me"):
        clock.now += 11.9
        await pace.ask(provider, ID, "me", free)
        assert len(provider.asked) == 1
        clock.now += 0.2  # a reply takes no longer
        await pace.ask(provider, ID, "me", free)
    assert len(provider.asked) == 2


async def test_only_a_question_that_is_sent_is_paid_for(pace: Pacing, provider: Provider) -> None:
    spent: list[str] = []
    for _ in range(3):
        await pace.ask(provider, ID, "me", lambda: spent.append("one"))
    assert spent == ["one"]


async def test_who_cannot_afford_a_question_has_none_sent(pace: Pacing, provider: Provider) -> None:
    def broke() -> None:
        raise RateLimitedError(7)

    with pytest.raises(RateLimitedError):
        await pace.ask(provider, ID, "me", broke)
    assert not provider.asked


async def test_a_failure_is_shared_but_not_remembered(pace: Pacing, provider: Provider) -> None:
    provider.open.clear()
    provider.failure = GatewayError("down")
    callers = [asyncio.create_task(pace.ask(provider, ID, "me", free)) for _ in range(2)]
    await until(lambda: bool(provider.asked))
    provider.open.set()
    assert all(
        isinstance(e, TemporarilyUnavailableError)
        for e in await asyncio.gather(*callers, return_exceptions=True)
    )
    provider.failure = None
    assert await pace.ask(provider, ID, "me", free)
    assert len(provider.asked) == 2


@pytest.mark.parametrize(
    ("failure", "becomes", "retry_after"),
    [
        (GatewayError("x"), TemporarilyUnavailableError, 5),
        (OSError("x"), TemporarilyUnavailableError, 5),
        (TimeoutError(), TemporarilyUnavailableError, 5),
        (GatewayRejectedError("x"), ProviderRejectedError, None),
        (GatewayThrottledError("x", retry_after=2.2), TemporarilyUnavailableError, 3),
        (GatewayThrottledError("x", retry_after=-5), TemporarilyUnavailableError, 1),
        (GatewayThrottledError("x", retry_after=float("inf")), TemporarilyUnavailableError, 60),
        (GatewayThrottledError("x", retry_after=float("nan")), TemporarilyUnavailableError, 1),
    ],
)
async def test_failures_become_ours(
    pace: Pacing,
    provider: Provider,
    failure: Exception,
    becomes: type[Exception],
    retry_after: int | None,
) -> None:
    provider.failure = failure
    with pytest.raises(becomes) as raised:
        await pace.ask(provider, ID, "me", free)
    assert raised.value.retry_after == retry_after  # type: ignore[attr-defined]


async def test_an_unknown_payment_is_an_answer(pace: Pacing, provider: Provider) -> None:
    provider.failure = PaymentNotFoundError("x")
    assert await pace.ask(provider, ID, "me", free) is None
    assert await pace.ask(provider, ID, "me", free) is None
    assert len(provider.asked) == 1


async def test_nonsense_is_said_to_be_nonsense(pace: Pacing, provider: Provider) -> None:
    provider.status = "refunded"
    with pytest.raises(InvalidProviderResponseError):
        await pace.ask(provider, ID, "me", free)


async def test_a_question_has_its_deadline() -> None:
    provider = Provider()  # never answers
    with pytest.raises(TemporarilyUnavailableError):
        await Pacing(deadline_seconds=0.02).ask(provider, ID, "me", free)
    assert provider.in_flight == 0


async def test_at_most_ten_questions_are_in_flight(pace: Pacing, provider: Provider) -> None:
    provider.open.clear()
    callers = [asyncio.create_task(pace.ask(provider, f"pay-{n}", "me", free)) for n in range(25)]
    await until(lambda: provider.in_flight == 10)
    for _ in range(100):
        await asyncio.sleep(0)
    provider.open.set()
    await asyncio.gather(*callers)
    assert (provider.peak, len(provider.asked)) == (10, 25)


async def test_a_429_pauses_all_questions_for_as_long_as_the_provider_asks(
    pace: Pacing, provider: Provider, clock: Clock
) -> None:
    provider.failure = GatewayThrottledError("x", retry_after=4)
    with pytest.raises(TemporarilyUnavailableError):
        await pace.ask(provider, ID, "me", free)
    provider.failure = None
    clock.now += 1.5
    spent: list[str] = []
    with pytest.raises(TemporarilyUnavailableError) as raised:
        await pace.ask(provider, "another", "me", lambda: spent.append("one"))
    assert not spent
    assert raised.value.retry_after == 3
    assert provider.asked == [ID]
    clock.now += 2.5
    assert await pace.ask(provider, "another", "me", free)


async def test_questions_that_waited_for_a_slot_heed_a_pause_too(pace: Pacing, provider: Provider) -> None:
    provider.open.clear()
    provider.failure = GatewayThrottledError("x", retry_after=4)
    callers = [asyncio.create_task(pace.ask(provider, f"pay-{n}", "me", free)) for n in range(15)]
    await until(lambda: provider.in_flight == 10)
    provider.open.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert len(provider.asked) == 10


async def test_the_schedule_walks_along_growing_steps(pace: Pacing, provider: Provider, clock: Clock) -> None:
    waits = []
    for _ in range(8):
        await pace.ask(provider, ID, "me", free)
        waits.append(pace.retry_after(ID))
        clock.now += waits[-1]
    assert waits == [3, 5, 8, 13, 21, 34, 34, 34]


async def test_a_client_that_keeps_to_it_asks_six_times_in_the_first_minute(
    pace: Pacing, provider: Provider, clock: Clock
) -> None:
    began = clock.now
    while clock.now < began + 60:
        await pace.ask(provider, ID, "me", free)
        clock.now += pace.retry_after(ID) + 0.05  # the way there and back
    assert len(provider.asked) == 6


async def test_a_call_between_two_appointments_is_sent_to_the_next(
    pace: Pacing, provider: Provider, clock: Clock
) -> None:
    await pace.ask(provider, ID, "me", free)
    clock.now += 1.5
    assert pace.retry_after(ID) == 2
    clock.now += 1.2  # a moment early
    assert pace.retry_after(ID) == 6


async def test_two_idle_minutes_start_the_schedule_anew(
    pace: Pacing, provider: Provider, clock: Clock
) -> None:
    await pace.ask(provider, ID, "me", free)
    clock.now += 119
    assert pace.retry_after(ID) == 34
    await pace.ask(provider, ID, "me", free)
    clock.now += 119
    assert pace.retry_after(ID) == 34
    clock.now += 2
    await pace.ask(provider, ID, "me", free)
    assert pace.retry_after(ID) == 3


async def test_memory_is_bounded(pace: Pacing, provider: Provider) -> None:
    for n in range(1500):
        await pace.ask(provider, f"pay-{n}", "me", free)
    assert len(pace._talks) == 1024


@pytest.mark.parametrize("kind", ["reading", "writing"])
async def test_reading_and_writing_have_two_threads_each_of_their_own(pace: Pacing, kind: str) -> None:
    release, lock = threading.Event(), threading.Lock()
    running, peak = 0, 0

    def work() -> int:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        release.wait(30)
        with lock:
            running -= 1
        return threading.get_ident()

    def run(kind: str, work: Callable[[], object]) -> Coroutine[Any, Any, object]:
        return pace.reading(work, object()) if kind == "reading" else pace.writing(work)

    jobs = [asyncio.create_task(run(kind, work)) for _ in range(12)]
    await until(lambda: running == 2)
    # What writes may be stuck, and proofs are read all the same; the other way round too.
    other = {"reading": "writing", "writing": "reading"}[kind]
    assert await asyncio.wait_for(run(other, lambda: "free"), 10) == "free"
    # The host's own pool is free meanwhile.
    assert await asyncio.to_thread(lambda: "free") == "free"
    release.set()
    threads = await asyncio.gather(*jobs)
    assert peak == 2
    assert threading.get_ident() not in threads


class Work:
    """Something that can be done for several at once; it waits until it may end."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        return number


async def test_who_wants_the_same_before_it_has_begun_shares_it(pace: Pacing) -> None:
    gate, work = asyncio.Lock(), Work()
    work.may_end.set()
    await gate.acquire()
    callers = [asyncio.create_task(pace.together("books", gate, work)) for _ in range(5)]
    other = asyncio.create_task(pace.together("other books", gate, Work()))
    await asyncio.sleep(0)
    assert work.begun == 0
    gate.release()
    assert await asyncio.gather(*callers) == [1] * 5
    assert not other.done()
    other.cancel()


async def test_who_comes_after_it_has_begun_has_it_done_anew(pace: Pacing) -> None:
    gate, work = asyncio.Semaphore(2), Work()
    first = asyncio.create_task(pace.together("books", gate, work))
    await until(lambda: work.begun == 1)
    second = asyncio.create_task(pace.together("books", gate, work))
    await until(lambda: work.begun == 2)
    work.may_end.set()
    assert (await first, await second) == (1, 2)


async def test_what_is_shared_goes_on_without_one_who_leaves(pace: Pacing) -> None:
    gate, work = asyncio.Semaphore(1), Work()
    first, second = (asyncio.create_task(pace.together("books", gate, work)) for _ in range(2))
    await until(lambda: work.begun == 1)
    first.cancel()
    work.may_end.set()
    assert await second == 1


async def test_nothing_is_kept_of_what_was_never_let_in(
    pace: Pacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "REPLY_SECONDS", 0.02)
    work = Work()
    work.may_end.set()
    async with pace.turn("me"):
        with pytest.raises(TemporarilyUnavailableError):
            await pace.together("books", pace.turn("me"), work)
    assert await pace.together("books", pace.turn("me"), work) == 1
    assert not pace._not_begun


async def test_a_reply_that_takes_too_long_is_given_up_and_the_work_goes_on(
    pace: Pacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "REPLY_SECONDS", 0.02)
    release, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        done.set()
        raise TemporarilyUnavailableError("nobody hears this")

    with pytest.raises(TemporarilyUnavailableError) as raised:
        await pace.reply(work())
    assert raised.value.reason == "timeout"
    release.set()
    await asyncio.wait_for(done.wait(), 10)


async def test_a_caller_that_disconnects_does_not_cancel_the_work(pace: Pacing) -> None:
    release, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        done.set()

    caller = asyncio.create_task(pace.reply(work()))
    await asyncio.sleep(0)
    caller.cancel()
    release.set()
    await asyncio.wait_for(done.wait(), 10)


async def test_one_at_a_time_decides_for_a_user(pace: Pacing) -> None:
    inside = 0

    async def decide(user_id: str) -> int:
        nonlocal inside
        async with pace.turn(user_id):
            assert pace.is_taken(user_id)
            inside += 1
            for _ in range(5):
                await asyncio.sleep(0)
            together = inside
            inside -= 1
            return together

    assert await asyncio.gather(*(decide("me") for _ in range(5))) == [1] * 5
    assert max(await asyncio.gather(*(decide(f"user-{n}") for n in range(5)))) > 1
    assert not pace.is_taken("me")
    assert not pace._turns  # nothing is kept of a turn that is over


async def test_a_turn_that_does_not_come_is_given_up(pace: Pacing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "REPLY_SECONDS", 0.02)
    async with pace.turn("me"):
        with pytest.raises(TemporarilyUnavailableError):
            await pace.turn("me").__aenter__()


async def test_what_is_waited_for_briefly_goes_on_alone(
    pace: Pacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_BRIEFLY_SECONDS", 0.02)
    release, done = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await release.wait()
        done.set()
        return "done"

    assert await pace.briefly(work()) is None
    release.set()
    await asyncio.wait_for(done.wait(), 10)
    assert await pace.briefly(work()) == "done"


async def test_a_question_that_is_cancelled_is_a_failure_like_others(
    pace: Pacing, provider: Provider
) -> None:
    provider.failure = asyncio.CancelledError()
    with pytest.raises(TemporarilyUnavailableError):
        await pace.ask(provider, ID, "me", free)


async def test_nothing_is_kept_of_a_failed_question(pace: Pacing, provider: Provider) -> None:
    provider.failure = GatewayError("x")
    with pytest.raises(TemporarilyUnavailableError):
        await pace.ask(provider, ID, "me", free)
    assert pace._talk(ID).question is None


def test_each_event_loop_has_its_own_and_a_closed_one_is_forgotten() -> None:
    per_loop = PacingPerLoop(8.0)

    async def here() -> Pacing:
        assert per_loop.here() is per_loop.here()
        return per_loop.here()

    assert asyncio.run(here()) is not asyncio.run(here())
    assert len(per_loop._by_loop) == 1


def test_a_budget_runs_out_for_one_user_alone_and_says_until_when() -> None:
    budget = Budget(limits.parse("2/minute"))
    budget.spend("me")
    budget.spend("me")
    with pytest.raises(RateLimitedError) as raised:
        budget.spend("me")
    assert raised.value.retry_after is not None
    assert 1 <= raised.value.retry_after <= 60
    budget.spend("somebody")
