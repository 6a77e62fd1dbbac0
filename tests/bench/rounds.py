"""One round of each row. The sides alternate within a round, so that a slow moment affects all of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from .client import Connection
from .fixture import Fixture
from .provider import OPEN, PAID
from .samples import (
    FIRST,
    FLOOR,
    IDLE,
    MANY,
    MEMORY_FIRST,
    MEMORY_NEXT,
    MEMORY_SWEEP,
    ONE,
    PENDING,
    QUERIES_ONE,
    QUERIES_RETURN,
    QUERIES_SWEEP,
    RECONCILE,
    REPEAT,
    STATEMENTS_SWEEP,
    STRAIGHTFORWARD,
    SWEEP,
    WAIT_MANY,
    WAIT_ONE,
    WAIT_SWEEP,
)
from .seed_data import Payment

_PAUSE_SECONDS = 0.01  # after each answer the host updates the user's last activity
_BYSTANDER_SECONDS = 0.1
_REPEATS = 3
_CALLS_OF_A_RETURN = 6  # polls of the host's balance page
_MEMORY_CALLERS = 20
_PAID_SHARE = 10  # one in ten is paid
_QUERYING = (RECONCILE, STRAIGHTFORWARD)
_random = random.Random(1)


async def single_calls(fixture: Fixture) -> None:
    """Measure one caller with one call at a time."""
    owner = _random.choice(fixture.users)
    paid = _for_each_side(fixture.seed_data.payments(PAID, [owner] * len(_QUERYING)))
    waiting = _for_each_side(fixture.seed_data.payments(OPEN, [owner] * len(_QUERYING)))
    fresh = [(FIRST, side, payment) for side, payment in paid.items()]
    fresh += [(PENDING, side, payment) for side, payment in waiting.items()]
    again = [(REPEAT, side, payment) for side, payment in paid.items()]
    again.append((REPEAT, FLOOR, paid[RECONCILE]))
    for calls in (fresh, again * _REPEATS):
        _random.shuffle(calls)
        for row, side, payment in calls:
            with fixture.measuring_work(row, side):
                answer = await fixture.call(fixture.callers[0], side, payment)
                await asyncio.sleep(_PAUSE_SECONDS)
            fixture.times.add(row, side, answer.milliseconds)


async def one_return(fixture: Fixture) -> None:
    """Count the provider queries of one return from the provider's page."""
    payments = fixture.seed_data.payments(PAID, fixture.users[: len(_QUERYING)])
    for side, payment in _for_each_side(payments).items():
        with _counting_queries(fixture, QUERIES_RETURN, side):
            for _ in range(_CALLS_OF_A_RETURN):
                await fixture.call(fixture.callers[0], side, payment)


async def storms(fixture: Fixture) -> None:
    """Measure all callers at once: for one payment, and for a payment each."""
    plan = [(row, side) for row in (ONE, MANY) for side in (*_QUERYING, FLOOR)]
    _random.shuffle(plan)
    for row, side in plan:
        await fixture.until_idle()
        if row == ONE:
            payments = fixture.seed_data.payments(PAID, [_random.choice(fixture.users)]) * len(fixture.users)
            with _counting_queries(fixture, QUERIES_ONE, side):
                await _storm(fixture, row, WAIT_ONE, side, payments)
        else:
            await _storm(fixture, row, WAIT_MANY, side, fixture.seed_data.payments(PAID, fixture.users))


async def sweeps(fixture: Fixture, passes: int, captured: int) -> None:
    """Measure passes over so many payments that are all settled, and what they do to others."""
    fixture.provider.list_captured(captured)
    await fixture.sweep()  # imports the SDK
    before = await fixture.memory_at_rest()
    for _ in range(passes):
        queries = fixture.provider.queries()
        async with _bystanders(fixture, WAIT_SWEEP, RECONCILE):
            done = await fixture.sweep()
        if done["listed"] != captured:
            fixture.wrong_answers["sweep"] += 1
        fixture.times.add(SWEEP, RECONCILE, done["seconds"] * 1000)
        fixture.times.add(QUERIES_SWEEP, RECONCILE, fixture.provider.queries() - queries)
        fixture.times.add(STATEMENTS_SWEEP, RECONCILE, done["statements"])
        async with _bystanders(fixture, WAIT_SWEEP, IDLE):
            await asyncio.sleep(done["seconds"])
    fixture.times.add(MEMORY_SWEEP, RECONCILE, await fixture.memory_at_rest() - before)


async def reconcile_many(fixture: Fixture, count: int) -> None:
    """Measure the memory kept after so many payments of different users, for each half of them."""
    for row in (MEMORY_FIRST, MEMORY_NEXT):
        users = fixture.seed_data.users(count // 2)
        paying, waiting = users[: len(users) // _PAID_SHARE], users[len(users) // _PAID_SHARE :]
        payments = fixture.seed_data.payments(PAID, paying) + fixture.seed_data.payments(OPEN, waiting)
        before = await fixture.memory_at_rest()
        left, callers = iter(payments), fixture.callers[:_MEMORY_CALLERS]
        await asyncio.gather(*(_reconcile_each(fixture, caller, left) for caller in callers))
        fixture.times.add(row, RECONCILE, await fixture.memory_at_rest() - before)


async def _reconcile_each(fixture: Fixture, caller: Connection, left: Iterator[Payment]) -> None:
    for payment in left:
        await fixture.call(caller, RECONCILE, payment)


async def _storm(fixture: Fixture, row: str, wait_row: str, side: str, payments: Sequence[Payment]) -> None:
    pairs = list(zip(fixture.callers, payments, strict=True))
    for bystander, request in zip(fixture.bystanders, fixture.unrelated, strict=True):
        fixture.times.add(wait_row, IDLE, await fixture.send_unrelated(bystander, request))
    with fixture.measuring_work(row, side):
        started_at = time.perf_counter()
        storm = asyncio.gather(*(fixture.call(caller, side, payment) for caller, payment in pairs))
        async with _bystanders(fixture, wait_row, side):
            await storm
            fixture.times.add(row, side, (time.perf_counter() - started_at) * 1000)
        await fixture.until_idle()


@asynccontextmanager
async def _bystanders(fixture: Fixture, row: str, side: str) -> AsyncIterator[None]:
    """Send unrelated requests meanwhile, too rarely to slow anything down."""
    over = asyncio.Event()

    async def go_on(bystander: Connection, request: bytes) -> None:
        await asyncio.sleep(_random.uniform(0, _BYSTANDER_SECONDS))
        while True:  # once at least, also where the storm is over sooner
            fixture.times.add(row, side, await fixture.send_unrelated(bystander, request))
            if over.is_set():
                return
            await asyncio.sleep(_BYSTANDER_SECONDS)

    pairs = zip(fixture.bystanders, fixture.unrelated, strict=True)
    asking = [asyncio.create_task(go_on(bystander, request)) for bystander, request in pairs]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*asking)


@contextmanager
def _counting_queries(fixture: Fixture, row: str, side: str) -> Iterator[None]:
    before = fixture.provider.queries()
    yield
    fixture.times.add(row, side, fixture.provider.queries() - before)


def _for_each_side(payments: Sequence[Payment]) -> dict[str, Payment]:
    return dict(zip(_QUERYING, payments, strict=True))
