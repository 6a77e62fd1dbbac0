"""The hosts of the contract tests. Each is started for the first test that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.yookassa.client import Simulator

from .scenarios import StartHost


@pytest.fixture(scope="session")
def sqlite_host(program: Program, simulator: Simulator) -> Iterator[Host]:
    """Yield a host with one worker and SQLite."""
    with running_host(program, simulator=simulator) as host:
        yield host


@pytest.fixture(scope="session")
def postgres_host(program: Program, simulator: Simulator, postgres: Postgres) -> Iterator[Host]:
    """Yield a host with two workers and PostgreSQL."""
    with running_host(program, simulator=simulator, database_url=postgres.new_database(), workers=2) as host:
        yield host


# Not a parametrized session fixture: alternating between its parameters would restart the hosts.
@pytest.fixture(params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest) -> Host:
    """Return the host under test, on either database."""
    running: Host = request.getfixturevalue(f"{request.param}_host")
    return running


@pytest.fixture
def user(host: Host) -> User:
    """Return a new user."""
    return host.new_user()


@pytest.fixture
def stranger(host: Host) -> User:
    """Return another new user."""
    return host.new_user()


@pytest.fixture(scope="session")
def start_host(program: Program) -> Iterator[StartHost]:
    """Yield a function that starts hosts with other settings, SQLite and one worker; each once."""
    with ExitStack() as stack:

        @cache
        def start(simulator: Simulator | None, **flags: str) -> Host:
            return stack.enter_context(running_host(program, simulator=simulator, env=flags))

        yield start
