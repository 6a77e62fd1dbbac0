"""The whole measurement: databases, hosts, rounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from tests.support.harness.host import running_host
from tests.support.harness.postgres import running_postgres
from tests.support.yookassa.process import ROOT

from .fixture import Bed
from .provider import Provider, running_provider
from .rounds import one_return, reconcile_many, single_calls, storms
from .samples import Samples
from .starts import measure_starts

DATABASES = SQLITE, POSTGRESQL = ("sqlite", "postgresql")
FEW_PAYMENTS = 10
"""In the tables of the small host to begin with."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything."""

    single_rounds: int
    storm_rounds: int
    callers: int
    many_payments: int
    in_memory: int
    starts: int


FULL = Effort(
    single_rounds=40, storm_rounds=3, callers=200, many_payments=100_000, in_memory=10_000, starts=300
)
QUICK = Effort(single_rounds=2, storm_rounds=1, callers=20, many_payments=1_000, in_memory=100, starts=5)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one host; of none, where it is about the interpreter alone."""

    database: str | None
    payments: int | None
    times: Samples
    work: Samples
    wrong_answers: Mapping[str, int]


def measure(databases: Sequence[str], effort: Effort) -> Iterator[Measured]:
    """Measure on each database in turn, then the interpreter."""
    with running_provider() as provider:
        for database in databases:
            yield from asyncio.run(_measure_database(database, provider, effort))
    starts = Samples()
    measure_starts(starts, effort.starts)
    yield Measured(None, None, starts, Samples(), {})


async def _measure_database(database: str, provider: Provider, effort: Effort) -> list[Measured]:
    async with AsyncExitStack() as stack:
        address = stack.enter_context(_addresses(database))
        few, many = [
            await stack.enter_async_context(_bed(provider, next(address), payments, effort.callers))
            for payments in (FEW_PAYMENTS, effort.many_payments)
        ]
        await _rounds([few, many], effort)
        await reconcile_many(few, effort.in_memory)
        return [Measured(database, b.old_payments, b.times, b.work, b.wrong_answers) for b in (few, many)]


async def _rounds(beds: Sequence[Bed], effort: Effort) -> None:
    for bed in beds:
        await single_calls(bed)
        await storms(bed)
        bed.forget()
    for _ in range(effort.single_rounds):
        for bed in beds:
            await single_calls(bed)
    for _ in range(effort.storm_rounds):
        for bed in beds:
            await storms(bed)
            await one_return(bed)


@contextmanager
def _addresses(database: str) -> Iterator[Iterator[str | None]]:
    """Empty databases, one after the other; `None` is a SQLite file of the host's own."""
    if database == SQLITE:
        yield iter([None, None])
        return
    with running_postgres() as server:
        yield iter([server.new_database(), server.new_database()])


@asynccontextmanager
async def _bed(provider: Provider, address: str | None, payments: int, callers: int) -> AsyncIterator[Bed]:
    env = {
        **provider.settings,
        "BILLING_TOPUP_RECONCILE_RATE_LIMIT": "1000000/minute",
        "PYTHONPATH": str(ROOT),
    }
    # Kept connections outlive the pauses between rounds; what is written about each request is left out.
    options = ("--no-access-log", "--timeout-keep-alive", "600", "--backlog", "2048")
    with running_host(database_url=address, env=env, app="tests.bench.app:app", options=options) as host:
        async with Bed(host, provider, payments, callers) as bed:
            yield bed
