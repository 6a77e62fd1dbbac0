"""One worker sweeps a PostgreSQL database at a time, whatever happens to its connection."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from openwebui_billing_reconcile.operate.election import Election
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[Engine]:
    """Yield a host's engine."""
    url = postgres.new_database().replace("postgresql://", "postgresql+psycopg2://", 1)
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    engine.dispose()


def election(engine: Engine) -> Election:
    host: Any = SimpleNamespace(engine=engine)
    return Election(host)


async def test_one_of_two_is_elected_and_the_hosts_pool_keeps_its_connections(engine: Engine) -> None:
    async with election(engine).candidate() as is_first:
        async with election(engine).candidate() as is_second:
            assert (is_first, is_second) == (True, False)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    async with election(engine).candidate() as is_first:
        assert is_first


async def test_a_connection_that_is_lost_gives_the_lock_up_and_ends_nothing(engine: Engine) -> None:
    async with election(engine).candidate() as is_first:
        assert is_first
        end_other_connections(engine)
        async with election(engine).candidate() as is_second:
            assert is_second
    async with election(engine).candidate() as is_first:
        assert is_first


def end_other_connections(engine: Engine) -> None:
    """Do what a restart, a timeout for idle transactions, or a network does."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        count = text(f"SELECT count(*) {others}")
        wait_until(lambda: connection.scalar(count) == 0, 10, "a connection is still there")
