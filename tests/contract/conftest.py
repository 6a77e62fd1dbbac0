"""The hosts of the contract tests: each is started when the first test asks for it."""

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
    """One worker, SQLite."""
    with running_host(program, simulator=simulator) as host:
        yield host


@pytest.fixture(scope="session")
def postgres_host(program: Program, simulator: Simulator, postgres: Postgres) -> Iterator[Host]:
    """Two workers, PostgreSQL."""
    with running_host(program, simulator=simulator, database_url=postgres.new_database(), workers=2) as host:
        yield host


# Not a parametrised session fixture: going to and fro between its parameters would start hosts anew.
@pytest.fixture(params=["sqlite", "postgres"])
def host(request: pytest.FixtureRequest) -> Host:
    """The host under test, on either database."""
    running: Host = request.getfixturevalue(f"{request.param}_host")
    return running


@pytest.fixture
def user(host: Host) -> User:
    """Somebody new."""
    return host.new_user()


@pytest.fixture
def stranger(host: Host) -> User:
    """Somebody else."""
    return host.new_user()


@pytest.fixture(scope="session")
def start_host(program: Program) -> Iterator[StartHost]:
    """Starts hosts with other settings, on SQLite with one worker; each once."""
    with ExitStack() as stack:

        @cache
        def start(simulator: Simulator | None, **flags: str) -> Host:
            return stack.enter_context(running_host(program, simulator=simulator, env=flags))

        yield start
