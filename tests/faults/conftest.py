"""The hosts of the fault tests, each started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.yookassa.client import Simulator

from .checkpoints import Checkpoints
from .host_pair import HostPair, watched_host

pytest.register_assert_rewrite("tests.faults.payments")

WORKERS = 4
DEADLINE = 3  # seconds for the provider, so that tests of a silent one need not wait for eight
NO_RATE_LIMIT = {"BILLING_TOPUP_RECONCILE_RATE_LIMIT": "1000000/minute"}
WATCHED = NO_RATE_LIMIT | {
    "GLOBAL_LOG_LEVEL": "DEBUG",
    "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS": str(DEADLINE),
}
# A call waits two seconds for a connection, not thirty.
POOL = {"DATABASE_POOL_SIZE": "5", "DATABASE_POOL_MAX_OVERFLOW": "10", "DATABASE_POOL_TIMEOUT": "2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that share hosts beside each other.

    Parallel test processes begin with a part of the list each, and each of them starts the hosts it needs:
    so the hosts of four workers, and mostly those on either database, are started once.
    """
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if not item.path.is_relative_to(Path(__file__).parent):
        return 2
    fixtures = getattr(item, "fixturenames", ())
    if "four_workers" in fixtures:
        return 0
    name = item.nodeid.rpartition("[")[2]
    return 3 if name.startswith("postgres") or "postgres_pair" in fixtures else 1


@pytest.fixture(scope="session")
def checkpoints() -> Iterator[Checkpoints]:
    """Where the watched workers report their steps."""
    checkpoints = Checkpoints()
    yield checkpoints
    checkpoints.close()


@pytest.fixture(scope="session")
def sqlite_pair(program: Program, simulator: Simulator, checkpoints: Checkpoints) -> Iterator[HostPair]:
    """Two hosts on SQLite."""
    with watched_host(program, checkpoints=checkpoints, simulator=simulator, env=WATCHED) as host:
        url = host.environment["DATABASE_URL"]
        with watched_host(program, simulator=simulator, database_url=url) as other:
            yield HostPair(host, other, checkpoints)


@pytest.fixture(scope="session")
def postgres_pair(
    program: Program, simulator: Simulator, checkpoints: Checkpoints, postgres: Postgres
) -> Iterator[HostPair]:
    """Two hosts on PostgreSQL."""
    url, env = postgres.new_database(), WATCHED | POOL
    with (
        watched_host(
            program, checkpoints=checkpoints, simulator=simulator, database_url=url, env=env
        ) as host,
        watched_host(program, simulator=simulator, database_url=url) as other,
    ):
        yield HostPair(host, other, checkpoints)


# Not a parametrised session fixture: alternating between its parameters would start hosts anew.
@pytest.fixture(params=["sqlite_pair", "postgres_pair"], ids=["sqlite", "postgres"])
def host_pair(request: pytest.FixtureRequest) -> HostPair:
    """Two hosts, on either database."""
    host_pair: HostPair = request.getfixturevalue(request.param)
    return host_pair


@pytest.fixture(scope="session")
def sqlite_four_workers(program: Program, simulator: Simulator) -> Iterator[Host]:
    """A host of four workers on SQLite."""
    with running_host(program, simulator=simulator, workers=WORKERS, env=NO_RATE_LIMIT) as host:
        yield host


@pytest.fixture(scope="session")
def postgres_four_workers(program: Program, simulator: Simulator, postgres: Postgres) -> Iterator[Host]:
    """A host of four workers on PostgreSQL."""
    url = postgres.new_database()
    with running_host(
        program, simulator=simulator, workers=WORKERS, database_url=url, env=NO_RATE_LIMIT
    ) as host:
        yield host


@pytest.fixture(params=["sqlite_four_workers", "postgres_four_workers"], ids=["sqlite", "postgres"])
def four_workers(request: pytest.FixtureRequest) -> Host:
    """A host of four workers, on either database."""
    host: Host = request.getfixturevalue(request.param)
    return host


@pytest.fixture
def user(host_pair: HostPair) -> User:
    """A new user of the watched host."""
    return host_pair.host.new_user()


@pytest.fixture
def stranger(host_pair: HostPair) -> User:
    """Another new user."""
    return host_pair.host.new_user()
