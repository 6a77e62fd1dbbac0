"""The whole measurement: databases, hosts, rounds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.harness.host import Program, running_host
from tests.support.harness.postgres import running_postgres
from tests.support.yookassa.process import ROOT

from .fixture import Fixture
from .provider import Provider, running_provider
from .rounds import one_return, reconcile_many, single_calls, storms, sweeps
from .samples import Samples
from .starts import measure_starts

DATABASES = SQLITE, POSTGRESQL = ("sqlite", "postgresql")
FEW_PAYMENTS = 10
"""Old payments in the tables of the small host."""


@dataclass(frozen=True, slots=True)
class Effort:
    """The size of a measurement."""

    single_rounds: int
    storm_rounds: int
    callers: int
    many_payments: int
    in_memory: int
    starts: int
    passes: int
    captured: int


FULL = Effort(
    single_rounds=40,
    storm_rounds=3,
    callers=200,
    many_payments=100_000,
    in_memory=10_000,
    starts=300,
    passes=5,
    captured=10_000,
)
QUICK = Effort(
    single_rounds=2,
    storm_rounds=1,
    callers=20,
    many_payments=1_000,
    in_memory=100,
    starts=5,
    passes=1,
    captured=250,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one host, or of the interpreter's start, which has no database."""

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
            await stack.enter_async_context(_fixture(provider, next(address), payments, effort.callers))
            for payments in (FEW_PAYMENTS, effort.many_payments)
        ]
        await _rounds([few, many], effort)
        await sweeps(many, effort.passes, effort.captured)
        await reconcile_many(few, effort.in_memory)
        return [Measured(database, f.old_payments, f.times, f.work, f.wrong_answers) for f in (few, many)]


async def _rounds(fixtures: Sequence[Fixture], effort: Effort) -> None:
    for fixture in fixtures:
        await single_calls(fixture)
        await storms(fixture)
        fixture.discard_warm_up()
    for _ in range(effort.single_rounds):
        for fixture in fixtures:
            await single_calls(fixture)
    for _ in range(effort.storm_rounds):
        for fixture in fixtures:
            await storms(fixture)
            await one_return(fixture)


@contextmanager
def _addresses(database: str) -> Iterator[Iterator[str | None]]:
    """Yield the addresses of empty databases; ``None`` is a SQLite file of the host's own."""
    if database == SQLITE:
        yield iter([None, None])
        return
    with running_postgres() as server:
        yield iter([server.new_database(), server.new_database()])


@asynccontextmanager
async def _fixture(
    provider: Provider, address: str | None, payments: int, callers: int
) -> AsyncIterator[Fixture]:
    env = {
        **provider.settings,
        "BILLING_TOPUP_RECONCILE_RATE_LIMIT": "1000000/minute",
        "PYTHONPATH": str(ROOT),
    }
    # Connections stay open between rounds, and the access log is off.
    options = ("--no-access-log", "--timeout-keep-alive", "600", "--backlog", "2048")
    program = Program(is_fresh=True)  # a forked one shares memory, which would not be counted
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,  # on the disk, whose time counts
        running_host(
            program,
            database_url=address,
            data_dir=Path(folder),
            env=env,
            app="tests.bench.app:app",
            options=options,
        ) as host,
    ):
        async with Fixture(host, provider, payments, callers) as fixture:
            yield fixture
