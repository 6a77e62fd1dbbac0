"""One round of each row. Within a round the sides take turns, so that a slow moment is everybody's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from .client import Connection
from .fixture import Bed
from .provider import OPEN, PAID
from .samples import (
    ASKED_ONE,
    ASKED_RETURN,
    FIRST,
    FLOOR,
    IDLE,
    MANY,
    MEMORY_FIRST,
    MEMORY_NEXT,
    ONE,
    PENDING,
    RECONCILE,
    REPEAT,
    STRAIGHTFORWARD,
    WAIT_MANY,
    WAIT_ONE,
)
from .seed_data import Payment

_PAUSE_SECONDS = 0.01  # after each answer the host writes down who was there
_BYSTANDER_SECONDS = 0.1
_REPEATS = 3
_CALLS_OF_A_RETURN = 6  # so often the host's balance page asks
_MEMORY_CALLERS = 20
_PAID_SHARE = 10  # of those remembered, one in ten is paid
_ASKING = (RECONCILE, STRAIGHTFORWARD)
_chance = random.Random(1)


async def single_calls(bed: Bed) -> None:
    """One caller, one call at a time."""
    owner = _chance.choice(bed.people)
    paid = _for_each_side(bed.stock.payments(PAID, [owner] * len(_ASKING)))
    waiting = _for_each_side(bed.stock.payments(OPEN, [owner] * len(_ASKING)))
    fresh = [(FIRST, side, payment) for side, payment in paid.items()]
    fresh += [(PENDING, side, payment) for side, payment in waiting.items()]
    again = [(REPEAT, side, payment) for side, payment in paid.items()]
    again.append((REPEAT, FLOOR, paid[RECONCILE]))
    for calls in (fresh, again * _REPEATS):
        _chance.shuffle(calls)
        for row, side, payment in calls:
            with bed.measuring_work(row, side):
                answer = await bed.ask(bed.callers[0], side, payment)
                await asyncio.sleep(_PAUSE_SECONDS)
            bed.times.add(row, side, answer.milliseconds)


async def one_return(bed: Bed) -> None:
    """Somebody comes back from the provider's page; how often the provider is asked for it."""
    payments = bed.stock.payments(PAID, bed.people[: len(_ASKING)])
    for side, payment in _for_each_side(payments).items():
        with _counting_questions(bed, ASKED_RETURN, side):
            for _ in range(_CALLS_OF_A_RETURN):
                await bed.ask(bed.callers[0], side, payment)


async def storms(bed: Bed) -> None:
    """All callers at once: for one payment, and for one each."""
    plan = [(row, side) for row in (ONE, MANY) for side in (*_ASKING, FLOOR)]
    _chance.shuffle(plan)
    for row, side in plan:
        await bed.until_still()
        if row == ONE:
            payments = bed.stock.payments(PAID, [_chance.choice(bed.people)]) * len(bed.people)
            with _counting_questions(bed, ASKED_ONE, side):
                await _storm(bed, row, WAIT_ONE, side, payments)
        else:
            await _storm(bed, row, WAIT_MANY, side, bed.stock.payments(PAID, bed.people))


async def reconcile_many(bed: Bed, count: int) -> None:
    """What stays in memory of so many payments, each of somebody else: of each half."""
    for row in (MEMORY_FIRST, MEMORY_NEXT):
        people = bed.stock.people(count // 2)
        paying, waiting = people[: len(people) // _PAID_SHARE], people[len(people) // _PAID_SHARE :]
        payments = bed.stock.payments(PAID, paying) + bed.stock.payments(OPEN, waiting)
        before = await bed.memory_at_rest()
        left = iter(payments)
        await asyncio.gather(*(_work_off(bed, caller, left) for caller in bed.callers[:_MEMORY_CALLERS]))
        bed.times.add(row, RECONCILE, await bed.memory_at_rest() - before)


async def _work_off(bed: Bed, caller: Connection, left: Iterator[Payment]) -> None:
    for payment in left:
        await bed.ask(caller, RECONCILE, payment)


async def _storm(bed: Bed, row: str, wait_row: str, side: str, payments: Sequence[Payment]) -> None:
    pairs = list(zip(bed.callers, payments, strict=True))
    for bystander, request in zip(bed.bystanders, bed.unrelated, strict=True):
        bed.times.add(wait_row, IDLE, await bed.ask_unrelated(bystander, request))
    with bed.measuring_work(row, side):
        began = time.perf_counter()
        storm = asyncio.gather(*(bed.ask(caller, side, payment) for caller, payment in pairs))
        async with _bystanders(bed, wait_row, side):
            await storm
            bed.times.add(row, side, (time.perf_counter() - began) * 1000)
        await bed.until_still()


@asynccontextmanager
async def _bystanders(bed: Bed, row: str, side: str) -> AsyncIterator[None]:
    """Meanwhile others want something else now and then: so rarely that they cost nobody much."""
    over = asyncio.Event()

    async def go_on(bystander: Connection, request: bytes) -> None:
        await asyncio.sleep(_chance.uniform(0, _BYSTANDER_SECONDS))
        while not over.is_set():
            bed.times.add(row, side, await bed.ask_unrelated(bystander, request))
            await asyncio.sleep(_BYSTANDER_SECONDS)

    pairs = zip(bed.bystanders, bed.unrelated, strict=True)
    asking = [asyncio.create_task(go_on(bystander, request)) for bystander, request in pairs]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*asking)


@contextmanager
def _counting_questions(bed: Bed, row: str, side: str) -> Iterator[None]:
    before = bed.provider.questions()
    yield
    bed.times.add(row, side, bed.provider.questions() - before)


def _for_each_side(payments: Sequence[Payment]) -> dict[str, Payment]:
    return dict(zip(_ASKING, payments, strict=True))
